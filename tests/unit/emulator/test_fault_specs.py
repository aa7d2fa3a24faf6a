"""The grammar of faults, and which of them a request meets."""

import random

import pytest

from llmproxy.emulator.faults import KINDS, Fault, FaultBoard, FaultError, Plan, Scope, parse_faults


def board(spec: str = "") -> FaultBoard:
    made = FaultBoard(random.Random(1))
    made.set(spec)
    return made


@pytest.mark.parametrize(
    ("spec", "faults"),
    [
        ("", ()),
        ("  ", ()),
        ("hang", (Fault("hang"),)),
        ("status=500", (Fault("status", 500),)),
        ("status=503+2", (Fault("status", 503, retry_after_s=2),)),
        ("die_after=5:0.1", (Fault("die_after", 5, probability=0.1),)),
        ("reset*3", (Fault("reset", count=3),)),
        ("status=500:0.5*2@health", (Fault("status", 500, 0.5, 2, Scope.HEALTH),)),
        ("slow=2.5, comments", (Fault("slow", 2.5), Fault("comments", 100))),
        ("comments=20", (Fault("comments", 20),)),
        ("refuse=0.5", (Fault("refuse", 0.5),)),
        ("hang@all", (Fault("hang", scope=Scope.ALL),)),
    ],
)
def test_specs(spec: str, faults: tuple[Fault, ...]) -> None:
    assert parse_faults(spec) == faults


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("explode", "unknown fault 'explode'"),
        ("hang,", "unknown fault ''"),
        ("hang=3", "hang takes no value"),
        ("status", "status needs a value"),
        ("status=200", "from 400 to 599"),
        ("status=abc", "must be a number"),
        ("status=503+x", "Retry-After must be a number"),
        ("die_after=-1", "at least 0"),
        ("die_after=1.5", "whole number"),
        ("slow=0.5", "at least 1"),
        ("slow=nan", "at least 1"),
        ("hang:1.5", "from 0 to 1"),
        ("hang:", "probability must be a number"),
        ("hang*0", "at least 1"),
        ("hang@door", "unknown scope 'door'"),
        ("refuse:0.5", "takes no probability"),
    ],
)
def test_bad_specs_say_what_is_wrong(spec: str, complaint: str) -> None:
    with pytest.raises(FaultError, match=complaint):
        parse_faults(spec)


def test_a_bad_spec_changes_nothing() -> None:
    standing = board("hang")
    with pytest.raises(FaultError):
        standing.set("nonsense")
    assert standing.spec == "hang"
    assert standing.plan(Scope.MODELS, None).begin == Fault("hang")


def test_each_request_meets_the_first_that_decides_and_every_shape() -> None:
    plan = board("slow=2,reset,status=500,die_after=3,comments=50,surplus").plan(Scope.MODELS, None)
    assert plan == Plan(begin=Fault("reset"), end=Fault("die_after", 3), slow=2.0, comments_s=0.05, surplus=True)


def test_a_scope_keeps_faults_to_their_routes() -> None:
    standing = board("reset,hang@health,slow=3@all")
    assert standing.plan(Scope.MODELS, None) == Plan(begin=Fault("reset"), slow=3.0)
    assert standing.plan(Scope.HEALTH, None) == Plan(begin=Fault("hang", scope=Scope.HEALTH), slow=3.0)
    assert standing.plan(Scope.ALL, None) == Plan(slow=3.0)


def test_a_count_is_used_up() -> None:
    standing = board("reset*2")
    begins = [standing.plan(Scope.MODELS, None).begin for _ in range(3)]
    assert [begin is not None for begin in begins] == [True, True, False]
    standing.set("reset*2")
    assert standing.plan(Scope.MODELS, None).begin is not None


def test_a_probability_is_drawn_for_each_request() -> None:
    standing = board("reset:0.25")
    hits = sum(standing.plan(Scope.MODELS, None).begin is not None for _ in range(2000))
    assert 400 < hits < 600


def test_a_requests_own_faults_come_first_and_need_no_scope() -> None:
    standing = board("reset")
    assert standing.plan(Scope.HEALTH, "status=500").begin == Fault("status", 500)
    assert standing.plan(Scope.MODELS, "hang").begin == Fault("hang")
    assert standing.plan(Scope.MODELS, "slow=2").begin == Fault("reset")


def test_a_request_cannot_close_the_listener() -> None:
    with pytest.raises(FaultError, match="cannot be asked for"):
        board().plan(Scope.MODELS, "refuse")


def test_only_a_certain_and_endless_sleep_is_told() -> None:
    assert board("sleep").asleep
    assert not board("sleep:0.5").asleep
    assert not board("sleep*1").asleep
    assert not board("stall").asleep


def test_every_kind_is_in_the_manual() -> None:
    from llmproxy.emulator import faults

    for name in KINDS:
        assert f"`{name}" in (faults.__doc__ or ""), name
