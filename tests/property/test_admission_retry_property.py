"""Retry budget and retry rules under any sequence of events."""

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.core.outcome import Outcome
from llmproxy.policy.retry.budget import Budget
from llmproxy.policy.retry.rules import Ended, RetryState, Rules, Subject, Verdict, decide

LIVES = st.lists(st.sampled_from(["start", "end", "spend", "give"]), max_size=200)


@given(st.floats(0.0, 1.0), st.integers(0, 20), LIVES)
def test_the_budget_is_never_exceeded_by_spending(ratio, floor, events):
    budget = Budget(ratio, floor)
    live = retries = 0
    for event in events:
        if event == "start":
            budget.request_started()
            live += 1
        elif event == "end" and live:
            budget.request_ended()
            live -= 1
        elif event == "spend":
            allowed = retries + 1 <= max(floor, ratio * live)
            assert budget.try_spend() is allowed
            retries += allowed
        elif event == "give" and retries:
            budget.give_back()
            retries -= 1
        assert (budget.live, budget.retries) == (live, retries)


ENDS = st.builds(
    Ended,
    outcome=st.sampled_from(Outcome),
    committed=st.booleans(),
    reused=st.booleans(),
    lasted_s=st.floats(0.0, 10.0),
)


@given(
    st.lists(ENDS, min_size=1, max_size=30),
    st.builds(Subject, repeatable=st.booleans(), replayable=st.booleans()),
    st.builds(Rules, attempts=st.integers(1, 10), after_crash=st.integers(0, 5)),
)
def test_a_request_s_retries_are_bounded(ends, subject, rules):
    state, sent, free, crashes = RetryState(), 0, 0, 0
    for end in ends:
        sent += 1
        decision = decide(state, end, subject, rules, 0.0)
        if decision.verdict is Verdict.FAIL:
            break
        assert not end.committed
        assert subject.replayable
        state = decision.state
        free += decision.verdict is Verdict.FREE
        crashes += end.outcome.is_crash and decision.reason != "stale_connection"
    assert sent <= rules.attempts + 1
    assert free <= 2
    assert crashes <= rules.after_crash
