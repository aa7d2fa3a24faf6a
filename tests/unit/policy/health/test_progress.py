"""Who hangs: engines with work of which nothing moves, and not those that compute a long prompt."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy.core.backend import Gauges
from llmproxy.policy.health.progress import Progress, Work

STALLED_AFTER_S = 60.0
WAITING = Work(requests=1)


class Watched:
    """An engine looked at once a second."""

    def __init__(self, prompt_tokens=1000.0, generation_tokens=500.0):
        self.progress = Progress()
        self.now = 0.0
        self.counters = {"prompt_tokens": prompt_tokens, "generation_tokens": generation_tokens}
        self.running = 1.0
        self.waiting = 0.0
        self.work = WAITING
        self.max_age_s = float("inf")

    def look(self, seconds=1, stalled_after_s=STALLED_AFTER_S, **grow):
        """Let so many seconds pass, the counters growing by `grow` in each. Returns the last verdict."""
        for _ in range(int(seconds)):
            self.now += 1.0
            for name, by in grow.items():
                self.counters[name] = (self.counters.get(name) or 0.0) + by
            said = {"running": self.running, "waiting": self.waiting, "max_age_s": self.max_age_s}
            gauges = Gauges(self.now, **said, **self.counters)
            self.progress.look(gauges, self.work, stalled_after_s)
        return self.progress.hung

    def seconds_until_hung(self, most=100_000):
        started = self.now
        while not self.look():
            if self.now - started >= most:
                return None
        return self.now - started


def test_hung_when_it_has_work_and_nothing_moves():
    engine = Watched()
    engine.look(30, generation_tokens=20)
    assert engine.look(59) is False
    assert engine.look() is True


@pytest.mark.parametrize("counter", ["prompt_tokens", "generation_tokens", "heartbeat"])
def test_any_counter_that_moves_is_progress(counter):
    engine = Watched()
    for _ in range(10):
        assert engine.look(50) is False
        assert engine.look(**{counter: 1}) is False
    assert engine.look(60) is True


def test_so_is_any_answer_of_ours_that_moves():
    engine = Watched()
    engine.look(50)
    engine.work = Work(requests=2, moved_at=engine.now)
    assert engine.look(50) is False
    assert engine.look(10) is True


def test_new_requests_are_no_progress():
    """Under load there is a new one every second: a hung engine takes them all."""
    engine = Watched()
    engine.look()
    for second in range(60):
        engine.running += 1
        engine.waiting += 1
        engine.work = Work(requests=second)
        engine.look()
    assert engine.progress.hung


def test_without_work_nobody_hangs():
    engine = Watched()
    engine.running, engine.work = 0.0, Work()
    assert engine.look(10_000) is False
    engine.work = WAITING
    assert engine.look(59) is False
    assert engine.look(2) is True


@pytest.mark.parametrize(
    ("running", "waiting", "requests"), [(1.0, 0.0, 0), (0.0, 1.0, 0), (0.0, 0.0, 1), (None, None, 1)]
)
def test_work_is_what_it_says_and_what_we_know(running, waiting, requests):
    engine = Watched()
    engine.running, engine.waiting, engine.work = running, waiting, Work(requests=requests)
    assert engine.look(61) is True


def test_an_engine_without_counters_is_not_judged():
    engine = Watched(None, None)
    assert engine.look(10_000) is False


def test_a_restart_is_progress():
    engine = Watched()
    engine.look(61)
    assert engine.progress.hung
    engine.counters = {"prompt_tokens": 0.0, "generation_tokens": 0.0}
    assert engine.look() is False


def test_hung_until_something_moves():
    engine = Watched()
    engine.look(61)
    # That it shows no work any more proves nothing: it may have stopped to say.
    engine.running, engine.work = 0.0, Work()
    assert engine.look(1000) is True
    assert engine.look(generation_tokens=1) is False
    assert engine.look(59) is False


def test_hung_until_a_probe_shows_that_it_moves():
    engine = Watched()
    engine.look(61)
    engine.progress.moved(engine.now)
    assert engine.progress.hung is False
    assert engine.look(59) is False
    assert engine.look(1) is True


def test_zero_is_off():
    engine = Watched()
    assert engine.look(10_000, stalled_after_s=0.0) is False
    engine.look(61)
    assert engine.progress.hung
    assert engine.look(stalled_after_s=0.0) is False


# -- long prompts ------------------------------------------------------------------------------------------------------


def test_a_long_prompt_has_the_time_it_takes():
    engine = Watched()
    engine.work = Work(requests=1, prompt_tokens=1_000_000, prefill_tokens_per_s=10_000)
    engine.look()
    # 100 s at its speed, four times as long to be generous, and what is allowed without it.
    assert engine.seconds_until_hung() == 460


def test_so_has_that_of_an_answer_that_comes_whole():
    engine = Watched()
    engine.work = Work(requests=1, prefill_tokens_per_s=10_000, wholes=((1.0, 1_000_000.0),))
    engine.look()
    assert engine.seconds_until_hung() == 460


def test_a_prompt_that_must_be_done_excuses_nothing_any_more():
    """Answers that come whole, long since generated: what hangs is not their prompts."""
    engine = Watched()
    engine.work = Work(requests=20, prefill_tokens_per_s=10_000, wholes=((0.0, 50_000.0),) * 20)
    engine.look(600, generation_tokens=20)
    assert engine.seconds_until_hung() == 60
    # A new one has its time.
    fresh = Watched()
    fresh.work = replace(engine.work, wholes=((0.0, 50_000.0), (600.0, 50_000.0)))
    fresh.look(600, generation_tokens=20)
    assert fresh.seconds_until_hung() == 60 + 20


def test_no_speed_is_believed_that_would_excuse_a_hang_for_ever():
    engine = Watched()
    engine.work = Work(requests=1, prompt_tokens=5_000, prefill_tokens_per_s=0.001)
    engine.look()
    assert engine.seconds_until_hung() == 60 + 4 * 5_000 / 200


def test_a_short_prompt_makes_no_difference():
    engine = Watched()
    engine.work = Work(requests=1, prompt_tokens=30, prefill_tokens_per_s=10_000)
    engine.look()
    assert engine.seconds_until_hung() <= 61


def test_the_speed_is_learned_from_the_counters():
    fast, slow = Watched(), Watched()
    for engine, tokens_per_s in ((fast, 20_000), (slow, 500)):
        engine.work = Work(requests=1, prompt_tokens=1000)
        engine.look(300, prompt_tokens=tokens_per_s)
        assert engine.progress.prefill_tokens_per_s == pytest.approx(tokens_per_s, rel=0.2)
        engine.work = Work(requests=1, prompt_tokens=100_000)
    assert fast.seconds_until_hung() == pytest.approx(60 + 20, abs=5)
    assert slow.seconds_until_hung() == pytest.approx(60 + 800, rel=0.2)


def test_cached_tokens_are_not_computed():
    engine = Watched()
    engine.counters["prefix_hits"] = 0.0
    engine.work = Work(requests=1, prompt_tokens=1000)
    engine.look(300, prompt_tokens=20_000, prefix_hits=19_000)
    assert engine.progress.prefill_tokens_per_s == pytest.approx(1000, rel=0.2)


def test_a_prompt_counted_all_at_once_when_it_is_done_is_not_taken_for_speed():
    """vLLM counts a prompt's tokens at its end: a minute of nothing, then half a million."""
    engine = Watched()
    engine.work = Work(requests=1, prompt_tokens=500_000)
    for _ in range(10):
        assert engine.look(59) is False
        assert engine.look(prompt_tokens=500_000) is False
    assert engine.progress.prefill_tokens_per_s == pytest.approx(500_000 / 60, rel=0.3)


def test_standing_still_is_no_excuse_for_standing_still():
    """The time in which it hangs must not make it seem slow, or it would never be found to hang."""
    engine = Watched()
    engine.work = Work(requests=1, prompt_tokens=1000)
    engine.look(120, prompt_tokens=5000)
    before = engine.progress.prefill_tokens_per_s
    engine.look(50)
    assert engine.progress.prefill_tokens_per_s == before
    assert engine.seconds_until_hung() <= 11


def test_an_absurdly_slow_engine_is_not_waited_for_for_ever():
    engine = Watched()
    engine.work = Work(requests=1, prompt_tokens=8000)
    engine.look(3000, prompt_tokens=1)
    assert engine.seconds_until_hung() == pytest.approx(60 + 4 * 8000 / 200, abs=2)


# -- gaps --------------------------------------------------------------------------------------------------------------


def test_who_was_out_of_sight_is_watched_anew():
    """It may have been without work, and have got some just now."""
    engine = Watched()
    engine.max_age_s = 5.0
    engine.look(50)
    engine.now += 100
    assert engine.look(60) is False
    assert engine.look(1) is True
    engine.now += 100
    assert engine.look(1) is True


def test_a_missed_look_or_two_does_not_matter():
    engine = Watched()
    engine.max_age_s = 5.0
    engine.look(50)
    engine.now += 8
    assert engine.look(1) is False
    assert engine.look(3) is True


@given(
    st.lists(
        st.tuples(
            st.floats(0.01, 30), st.sampled_from([0.0, 0.0, 1.0]), st.integers(0, 3), st.floats(0, 1e6), st.booleans()
        ),
        max_size=60,
    )
)
def test_it_hangs_only_after_standing_still_for_long_enough(steps):
    progress, now, tokens, moved_at, still_since = Progress(), 0.0, 0.0, float("-inf"), None
    for passed, grows, running, prompt, answers in steps:
        now += passed
        tokens += grows
        if answers:
            moved_at = now
        work = Work(running, moved_at, prompt, 1000.0)
        if grows or answers or still_since is None or (not running and not progress.hung):
            still_since = now
        hung = progress.look(Gauges(now, running=float(running), generation_tokens=tokens), work, STALLED_AFTER_S)
        assert not hung or now - still_since >= STALLED_AFTER_S
        if not hung and running:
            assert now - still_since < STALLED_AFTER_S + 4 * prompt / 1000.0 + 1e-6
