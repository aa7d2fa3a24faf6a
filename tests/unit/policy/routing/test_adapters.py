"""Who has the LoRA adapter that is asked for, and what that is worth to each policy."""

import pytest

from llmproxy.core.backend import Gauges
from llmproxy.core.request import Request
from llmproxy.policy.routing.adapters import IDLE, MISSING, Adapters

POLICIES = ("expected_cost", "prefix_affinity", "scored")


def knows(backend, *models, loras=None, at=0.0):
    backend.gauges = Gauges(at=at, models=models, loras=loras, max_age_s=5.0)


@pytest.fixture
def three(backends):
    """`a` uses the adapter, `b` has it, `c` has never heard of it."""
    a, b, c = backends(1, 1, 1)
    knows(a, "base", "sql", loras=("sql",))
    knows(b, "base", "sql", loras=())
    knows(c, "base", loras=())
    return [a, b, c]


def test_who_lacks_what(three):
    _a, b, c = three
    assert Adapters().lacking("sql", three, 0.0) == {b: IDLE, c: MISSING}
    assert Adapters().lacking("base", three, 0.0) == {}
    assert Adapters().lacking(None, three, 0.0) == {}
    assert Adapters().lacking("sql", [b, c], 0.0) == {c: MISSING}


def test_nobody_lacks_what_no_one_has(three):
    assert Adapters().lacking("invented", three, 0.0) == {}


def test_the_unknown_is_not_held_against_anyone(three):
    _a, _b, c = three
    c.gauges = None
    assert c not in Adapters().lacking("sql", three, 0.0)
    # What a server has lasts; what its requests use does not.
    assert Adapters().lacking("sql", three, 6.0) == {}
    knows(c, "base", at=0.0)
    assert Adapters().lacking("sql", three, 6.0) == {c: MISSING}


def test_news_count_soon_and_leavers_at_once(three):
    a, b, c = three
    adapters = Adapters()
    assert adapters.lacking("sql", three, 0.0) == {b: IDLE, c: MISSING}
    knows(c, "base", "sql", loras=("sql",))
    assert adapters.lacking("sql", three, 0.4) == {b: IDLE, c: MISSING}
    assert adapters.lacking("sql", three, 1.0) == {b: IDLE}
    adapters.forget(a)
    knows(c, "base")
    assert adapters.lacking("sql", [b, c], 1.0) == {c: MISSING}


def test_fewer_candidates_are_compared_among_themselves(three):
    _a, b, c = three
    adapters = Adapters()
    adapters.lacking("sql", three, 0.0)
    assert adapters.lacking("sql", [b, c], 0.0) == {c: MISSING}
    assert adapters.lacking("sql", [c], 0.0) == {}
    # And leave no trace.
    assert adapters.lacking("sql", three, 0.0) == {b: IDLE, c: MISSING}


def test_a_few_candidates_do_not_speak_for_all(three):
    adapters = Adapters()
    assert adapters.lacking("sql", three[2:], 0.0) == {}
    assert set(adapters.lacking("sql", three, 0.0)) == set(three[1:])


def test_invented_names_take_bounded_memory(three):
    adapters = Adapters()
    for number in range(5000):
        adapters.lacking(f"invented-{number}", three, 0.0)
    assert len(adapters._known) <= 1000


@pytest.mark.parametrize("name", POLICIES)
def test_requests_go_where_their_adapter_is(name, policy, three, picks):
    assert set(picks(policy(name), three[1:], 50, Request(model="sql"))) == {"b"}
    assert set(picks(policy(name), three[1:], 50, Request(model="base"))) == {"b", "c"}


@pytest.mark.parametrize("name", ["expected_cost", "scored"])
def test_and_where_it_is_in_use_already(name, policy, three, picks):
    assert set(picks(policy(name), three, 50, Request(model="sql"))) == {"a"}


@pytest.mark.parametrize("name", POLICIES)
def test_it_is_a_preference_and_no_condition(name, policy, three, picks):
    assert set(picks(policy(name), three[2:], 5, Request(model="sql"))) == {"c"}


@pytest.mark.parametrize("name", ["expected_cost", "prefix_affinity"])
def test_and_has_its_bounds(name, policy, three, picks):
    for _ in range(3000):
        three[1].load.enter()
    assert set(picks(policy(name), three[1:], 5, Request(model="sql"))) == {"c"}


def test_what_it_counts_is_an_option_and_is_told(policy, three):
    made = policy("expected_cost", adapter_idle=1.5, adapter_missing=60.0)
    told = made.explain(three, Request(model="sql"), 0.0)
    assert [terms["adapter_s"] for terms in told] == [0.0, 1.5, 60.0]
    assert told[2]["cost"] - told[0]["cost"] == pytest.approx(60.0)
    with pytest.raises(ValueError, match="negative"):
        policy("expected_cost", adapter_idle=-1)
