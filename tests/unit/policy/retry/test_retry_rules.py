import pytest

from llmproxy.core.outcome import Outcome
from llmproxy.policy.retry.rules import Ended, RetryState, Rules, Subject, Verdict, decide

SUBJECT = Subject(repeatable=True)


def run(*ended, subject=SUBJECT, rules=Rules(), now=0.0):
    """Verdicts (with the reason) for attempts of one request that end like this, until one is final."""
    state, told = RetryState(), []
    for end in ended:
        decision = decide(state, end if isinstance(end, Ended) else Ended(end), subject, rules, now)
        told.append((decision.verdict.value, decision.reason))
        state = decision.state
        if decision.verdict is Verdict.FAIL:
            break
    return told


LOST_FRESH = Ended(Outcome.RESET, reused=False, lasted_s=0.01)
STALE = Ended(Outcome.RESET, reused=True, lasted_s=0.01)


class TestFree:
    @pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.RESET])
    def test_the_first_proven_loss(self, outcome):
        assert run(outcome) == [("free", "loss")]

    def test_once_a_request_then_out_of_the_budget(self):
        assert run(Outcome.REFUSED, Outcome.REFUSED, Outcome.REFUSED) == [
            ("free", "loss"),
            ("budget", "refused"),
            ("fail", "attempts"),
        ]

    def test_still_there_after_a_failure_of_another_kind(self):
        assert run(Outcome.SERVER_ERROR, Outcome.REFUSED) == [("budget", "server_error"), ("free", "loss")]


class TestBudget:
    @pytest.mark.parametrize(
        "outcome",
        [
            Outcome.SERVER_ERROR,
            Outcome.ENGINE_ABORT,
            Outcome.FIRST_BYTE_TIMEOUT,
            Outcome.CONNECT_TIMEOUT,
            Outcome.STALLED,
            Outcome.BAD_RESPONSE,
            Outcome.BUSY,
        ],
    )
    def test_what_may_have_cost_a_generation_or_says_full(self, outcome):
        assert run(outcome) == [("budget", outcome.value)]

    def test_within_the_attempts(self):
        ends = [Outcome.SERVER_ERROR] * 5
        assert [verdict for verdict, _ in run(*ends)] == ["budget", "budget", "fail"]
        assert [verdict for verdict, _ in run(*ends, rules=Rules(attempts=5))] == ["budget"] * 4 + ["fail"]

    def test_one_attempt_means_no_retry_of_any_kind(self):
        assert run(Outcome.REFUSED, rules=Rules(attempts=1)) == [("fail", "attempts")]


class TestCrash:
    def test_a_poisonous_prompt_kills_two_engines_at_most(self):
        assert run(LOST_FRESH, LOST_FRESH, LOST_FRESH, rules=Rules(attempts=10)) == [
            ("free", "loss"),
            ("fail", "after_crash"),
        ]

    def test_none_at_all_when_told_so(self):
        assert run(LOST_FRESH, rules=Rules(after_crash=0)) == [("fail", "after_crash")]

    def test_refused_is_no_crash(self):
        assert run(Outcome.REFUSED, LOST_FRESH, rules=Rules(attempts=10))[-1] == ("budget", "reset")

    def test_more_when_allowed(self):
        rules = Rules(attempts=10, after_crash=2)
        assert [verdict for verdict, _ in run(*[LOST_FRESH] * 3, rules=rules)] == ["free", "budget", "fail"]

    def test_a_cut_that_nobody_saw_counts_as_one(self):
        assert run(Outcome.CUT, Outcome.CUT) == [("budget", "cut"), ("fail", "after_crash")]


class TestStaleConnection:
    def test_free_and_neither_a_crash_nor_the_loss_nor_an_attempt(self):
        assert run(STALE, LOST_FRESH, Outcome.SERVER_ERROR, Outcome.SERVER_ERROR) == [
            ("free", "stale_connection"),
            ("free", "loss"),
            ("budget", "server_error"),
            ("fail", "attempts"),
        ]

    def test_even_where_no_retries_are_wanted(self):
        assert run(STALE, Outcome.OK, rules=Rules(attempts=1, after_crash=0))[0] == ("free", "stale_connection")

    def test_once(self):
        assert run(STALE, STALE, STALE) == [("free", "stale_connection"), ("free", "loss"), ("fail", "after_crash")]

    def test_an_engine_that_dies_later_is_no_stale_connection(self):
        dies = Ended(Outcome.RESET, reused=True, lasted_s=5.0)
        assert run(dies, dies) == [("free", "loss"), ("fail", "after_crash")]

    def test_not_for_what_must_not_be_repeated(self):
        assert run(STALE, subject=Subject(repeatable=False)) == [("fail", "not_repeatable")]


class TestNever:
    @pytest.mark.parametrize("outcome", list(Outcome))
    def test_once_something_went_downstream(self, outcome):
        [(verdict, _)] = run(Ended(outcome, committed=True, reused=True, lasted_s=0.0))
        assert verdict == "fail"

    @pytest.mark.parametrize("outcome", [Outcome.OK, Outcome.ABANDONED, Outcome.DEADLINE])
    def test_where_there_is_nothing_to_mend(self, outcome):
        assert run(outcome) == [("fail", outcome.value)]

    def test_after_the_deadline(self):
        subject = Subject(repeatable=True, deadline=10.0)
        assert run(Outcome.REFUSED, subject=subject, now=9.9) == [("free", "loss")]
        assert run(Outcome.REFUSED, subject=subject, now=10.0) == [("fail", "deadline")]

    def test_without_the_body(self):
        assert run(Outcome.REFUSED, subject=Subject(repeatable=True, replayable=False)) == [("fail", "body_gone")]


class TestNotRepeatable:
    @pytest.mark.parametrize("outcome", [Outcome.RESET, Outcome.SERVER_ERROR, Outcome.FIRST_BYTE_TIMEOUT, Outcome.BUSY])
    def test_not_what_may_have_been_carried_out(self, outcome):
        assert run(outcome, subject=Subject(repeatable=False)) == [("fail", "not_repeatable")]

    @pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.CONNECT_TIMEOUT])
    def test_but_what_never_left(self, outcome):
        [(verdict, _)] = run(outcome, subject=Subject(repeatable=False))
        assert verdict != "fail"
