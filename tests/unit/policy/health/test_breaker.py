import random

import pytest

from llmproxy.policy.health.breaker import Breaker, State
from llmproxy.policy.health.settings import HealthSettings


def make(**settings):
    return Breaker(HealthSettings(**settings), random.Random(1))


def fail(breaker, now):
    """A failure that opens when it is one too many."""
    if breaker.failed(now, trial=False):
        breaker.open(now)
    return breaker.state


def half_open(breaker):
    breaker.open(0.0)
    breaker.tick(breaker.due)
    assert breaker.state is State.HALF_OPEN
    return breaker


class TestOpening:
    def test_the_fifth_failure_in_a_row_opens(self):
        breaker = make()
        assert [fail(breaker, 0.0) for _ in range(5)] == [State.CLOSED] * 4 + [State.OPEN]

    def test_failures_in_a_row_open_however_far_apart(self):
        breaker = make()
        assert [fail(breaker, i * 3600.0) for i in range(5)][-1] is State.OPEN

    def test_failures_among_successes_open_within_the_window(self):
        breaker = make(failures=5, window_s=30.0)
        for i in range(4):
            fail(breaker, i * 7.0)
            breaker.succeeded(i * 7.0, trial=False)
        assert fail(breaker, 28.0) is State.OPEN

    def test_failures_among_successes_do_not_open_when_spread_wider(self):
        breaker = make(failures=5, window_s=30.0)
        for i in range(50):
            assert fail(breaker, i * 9.0) is State.CLOSED
            breaker.succeeded(i * 9.0, trial=False)

    def test_a_large_share_of_failures_opens_once_there_are_enough_requests(self):
        breaker = make(failures=1000, error_ratio=0.5, min_requests=20)
        states = []
        for _ in range(10):
            breaker.succeeded(0.0, trial=False)
            states.append(fail(breaker, 0.0))
        assert states == [State.CLOSED] * 9 + [State.OPEN]

    def test_a_small_share_does_not(self):
        breaker = make(failures=1000, error_ratio=0.5, min_requests=20)
        for _ in range(100):
            breaker.succeeded(0.0, trial=False)
            breaker.succeeded(0.0, trial=False)
            assert fail(breaker, 0.0) is State.CLOSED

    def test_when_the_caller_cannot_spare_it_every_further_failure_asks_again(self):
        breaker = make()
        assert [breaker.failed(0.0, trial=False) for _ in range(7)] == [False] * 4 + [True] * 3
        assert breaker.state is State.CLOSED


class TestOpen:
    def test_open_lasts_open_for_less_the_jitter(self):
        ends = set()
        for seed in range(50):
            breaker = Breaker(HealthSettings(open_for_s=10.0), random.Random(seed))
            breaker.open(100.0)
            assert 109.0 <= breaker.due <= 110.0
            ends.add(breaker.due)
        assert len(ends) == 50

    def test_outcomes_that_come_late_change_nothing(self):
        breaker = make()
        breaker.open(0.0)
        due = breaker.due
        breaker.succeeded(1.0, trial=False)
        assert not breaker.failed(1.0, trial=False)
        assert (breaker.state, breaker.due) == (State.OPEN, due)

    def test_half_open_when_the_time_is_over_and_not_before(self):
        breaker = make()
        breaker.open(0.0)
        breaker.tick(8.9)
        assert breaker.state is State.OPEN
        breaker.tick(breaker.due)
        assert breaker.state is State.HALF_OPEN

    def test_it_doubles_at_each_failed_trial_up_to_the_cap(self):
        breaker = make(open_for_s=10.0, max_open_for_s=120.0)
        now, waits = 0.0, []
        breaker.open(now)
        for _ in range(6):
            waits.append(breaker.due - now)
            now = breaker.due
            breaker.tick(now)
            assert breaker.take_trial()
            breaker.failed(now, trial=True)
        for wait, full in zip(waits, (10, 20, 40, 80, 120, 120), strict=True):
            assert 0.9 * full <= wait <= full

    def test_it_never_grows_out_of_bounds(self):
        breaker = make()
        for _ in range(5000):
            breaker.open(0.0)
        assert breaker.due <= 120.0

    def test_it_begins_small_again_after_it_closed(self):
        breaker = half_open(make())
        breaker.take_trial()
        breaker.failed(20.0, trial=True)
        breaker.tick(breaker.due)
        breaker.take_trial()
        breaker.succeeded(50.0, trial=True)
        breaker.open(100.0)
        assert breaker.due <= 110.0


class TestHalfOpen:
    def test_one_trial_at_a_time(self):
        breaker = half_open(make())
        assert [breaker.take_trial() for _ in range(3)] == [True, False, False]

    def test_a_good_trial_closes_and_forgets(self):
        breaker = half_open(make())
        breaker.take_trial()
        breaker.succeeded(11.0, trial=True)
        assert breaker.state is State.CLOSED
        assert [fail(breaker, 12.0) for _ in range(5)] == [State.CLOSED] * 4 + [State.OPEN]

    def test_a_bad_trial_opens(self):
        breaker = half_open(make())
        breaker.take_trial()
        breaker.failed(11.0, trial=True)
        assert (breaker.state, breaker.trial_out) == (State.OPEN, False)

    def test_a_trial_without_a_verdict_lets_the_next_one_try(self):
        breaker = half_open(make())
        breaker.take_trial()
        breaker.released(trial=True)
        assert breaker.state is State.HALF_OPEN
        assert breaker.take_trial()

    def test_other_requests_decide_nothing(self):
        breaker = half_open(make())
        breaker.take_trial()
        breaker.succeeded(11.0, trial=False)
        breaker.failed(11.0, trial=False)
        breaker.released(trial=False)
        assert (breaker.state, breaker.trial_out) == (State.HALF_OPEN, True)

    @pytest.mark.parametrize("state", ["closed", "open"])
    def test_no_trial_in_other_states(self, state):
        breaker = make()
        if state == "open":
            breaker.open(0.0)
        assert not breaker.take_trial()


class TestConfigure:
    def test_new_thresholds_count_at_once(self):
        breaker = make()
        fail(breaker, 0.0)
        breaker.configure(HealthSettings(failures=2), 0.0)
        assert fail(breaker, 0.0) is State.OPEN

    def test_a_long_wait_is_cut_to_what_is_allowed_now(self):
        breaker = make(open_for_s=100.0)
        breaker.open(0.0)
        breaker.configure(HealthSettings(open_for_s=1.0, max_open_for_s=5.0), 20.0)
        assert breaker.due == 25.0

    def test_a_new_window_begins_empty(self):
        breaker = make(failures=3)
        for _ in range(2):
            breaker.failed(0.0, trial=False)
            breaker.succeeded(0.0, trial=False)
        breaker.configure(HealthSettings(failures=3, window_s=60.0), 0.0)
        assert fail(breaker, 0.0) is State.CLOSED
