"""The engine in virtual time."""

from dataclasses import replace

import pytest

from llmproxy.sim import Engine, EngineOptions, Phase, Sequence

OPTIONS = EngineOptions(
    max_num_seqs=4,
    kv_blocks=100,
    block_size=4,
    ttft_s=1.0,
    itl_s=0.1,
    prefill_s_per_token=0.01,
    batch_slowdown=0.0,
    max_batched_tokens=1000,
)


class Run:
    """Jumps from due time to due time and notes when each sequence got its tokens."""

    def __init__(self, options: EngineOptions) -> None:
        self.engine: Engine[Sequence] = Engine(options)
        self.now = 0.0
        self.times: dict[Sequence, list[float]] = {}

    def submit(self, prompt: int, output: int, blocks: tuple[int, ...] = (), pace: float = 1.0) -> Sequence:
        sequence = Sequence(prompt, output, blocks=blocks, pace=pace)
        self.times[sequence] = []
        self.engine.submit(sequence, self.now)
        return sequence

    def until(self, end: float) -> None:
        steps = 0
        while (due := self.engine.due) is not None and due <= end:
            self.now = max(self.now, due)
            for sequence in self.engine.advance(self.now):
                self.times[sequence].append(self.now)
            steps += 1
            assert steps < 100_000, "the engine does not come to an end"
        self.now = max(self.now, end) if end < 1e9 else self.now

    def to_the_end(self) -> None:
        self.until(1e9)


def approx(*times: float) -> object:
    return pytest.approx(list(times))


def test_a_lone_request() -> None:
    run = Run(OPTIONS)
    lone = run.submit(prompt=20, output=3)
    run.to_the_end()
    # ttft_s, then 20 prompt tokens, then one step a token.
    assert run.times[lone] == approx(1.2, 1.3, 1.4)
    assert lone.phase is Phase.DONE
    assert lone.first_token_at == pytest.approx(1.2)
    assert run.engine.due is None
    assert run.engine.blocks.used == 0


def test_time_to_first_token_grows_with_the_prompt() -> None:
    times = []
    for prompt in (10, 20, 40):
        run = Run(OPTIONS)
        sequence = run.submit(prompt, 1)
        run.to_the_end()
        times.append(run.times[sequence][0])
    assert times == approx(1.1, 1.2, 1.4)


def test_steps_get_longer_with_the_batch() -> None:
    run = Run(replace(OPTIONS, batch_slowdown=0.5, prefill_s_per_token=0.0))
    three = [run.submit(1, 3) for _ in range(3)]
    run.to_the_end()
    for sequence in three:
        assert run.times[sequence] == approx(1.0, 1.2, 1.4)  # 0.1 * (1 + 0.5 * 2)


def test_a_long_prompt_is_felt_by_those_who_decode() -> None:
    run = Run(replace(OPTIONS, ttft_s=0.0))
    early = run.submit(1, 6)
    run.until(0.15)
    run.submit(100, 1)
    run.to_the_end()
    gaps = [later - sooner for sooner, later in zip(run.times[early], run.times[early][1:], strict=False)]
    assert max(gaps) == pytest.approx(0.1 + 100 * 0.01)
    assert min(gaps) == pytest.approx(0.1)


def test_a_long_prompt_is_computed_in_chunks() -> None:
    run = Run(replace(OPTIONS, ttft_s=0.0, max_batched_tokens=10))
    early = run.submit(1, 30)
    run.until(0.15)
    long = run.submit(27, 1)
    run.to_the_end()
    gaps = [later - sooner for sooner, later in zip(run.times[early], run.times[early][1:], strict=False)]
    # Nine prompt tokens beside the one that decodes, three times.
    assert sorted(gaps)[-3:] == approx(0.19, 0.19, 0.19)
    assert sorted(gaps)[-4] == pytest.approx(0.1)
    assert len(run.times[long]) == 1


def test_prompts_share_the_tokens_of_a_step() -> None:
    run = Run(replace(OPTIONS, ttft_s=0.0, max_batched_tokens=10))
    first, second = run.submit(8, 1), run.submit(8, 1)
    run.to_the_end()
    # Ten tokens in the first step: all of the one, two of the other.
    assert run.times[first] == approx(0.1)
    assert run.times[second] == approx(0.16)


def test_beyond_max_num_seqs_they_wait_in_order() -> None:
    run = Run(replace(OPTIONS, max_num_seqs=2))
    first, second, third, fourth = (run.submit(1, 2) for _ in range(4))
    assert (run.engine.running, run.engine.waiting) == (2, 2)
    assert third.phase is Phase.WAITING
    run.to_the_end()
    assert max(run.times[first] + run.times[second]) < min(run.times[third] + run.times[fourth])
    assert third.admitted_at == pytest.approx(run.times[first][-1])
    assert first.admitted_at == 0.0


def test_no_room_in_the_cache_makes_wait_too() -> None:
    run = Run(replace(OPTIONS, kv_blocks=4))
    first = run.submit(8, 4)  # two blocks, three at its end
    second = run.submit(9, 2)  # three blocks
    assert (first.phase, second.phase) == (Phase.PREFILL, Phase.WAITING)
    run.to_the_end()
    assert run.times[second][0] > run.times[first][-1]


def test_a_repeated_prefix_costs_no_computing() -> None:
    run = Run(OPTIONS)
    cold = run.submit(41, 1, blocks=tuple(range(10)))
    run.to_the_end()
    start = run.now
    warm = run.submit(41, 1, blocks=tuple(range(10)))
    run.to_the_end()
    assert run.times[cold][0] == pytest.approx(1.41)
    assert run.times[warm][0] - start == pytest.approx(1.01)
    assert (cold.cached_tokens, warm.cached_tokens) == (0, 40)
    assert (run.engine.prefix_queries, run.engine.prefix_hits) == (82, 40)


def test_generated_blocks_are_found_by_the_next_turn() -> None:
    run = Run(OPTIONS)
    run.submit(8, 9, blocks=(1, 2, 3, 4))
    run.to_the_end()
    second = run.submit(20, 1, blocks=(1, 2, 3, 4, 5))
    assert second.cached_tokens == 16


def test_the_cache_forgets_under_pressure() -> None:
    run = Run(replace(OPTIONS, kv_blocks=12))
    run.submit(40, 1, blocks=tuple(range(10)))
    run.to_the_end()
    run.submit(40, 1, blocks=tuple(range(100, 110)))
    run.to_the_end()
    again = run.submit(40, 1, blocks=tuple(range(10)))
    assert again.cached_tokens < 36


def test_abort_frees_the_place_at_once() -> None:
    run = Run(replace(OPTIONS, max_num_seqs=1))
    first, second = run.submit(4, 50), run.submit(4, 1)
    run.until(1.5)
    assert run.engine.abort(first, run.now)
    assert first.phase is Phase.DONE
    assert second.admitted_at == run.now
    assert not run.engine.abort(first, run.now)
    before = len(run.times[first])
    run.to_the_end()
    assert len(run.times[first]) == before
    assert len(run.times[second]) == 1
    assert run.engine.blocks.used == 0


def test_abort_in_every_phase_leaves_nothing_behind() -> None:
    for at in (0.5, 1.05, 1.35):
        run = Run(replace(OPTIONS, max_num_seqs=1))
        running, waiting = run.submit(20, 50), run.submit(20, 50)
        run.until(at)
        assert run.engine.abort(waiting, run.now)
        assert run.engine.abort(running, run.now)
        run.to_the_end()
        assert (run.engine.running, run.engine.waiting, run.engine.blocks.used) == (0, 0, 0)
        assert run.engine.due is None


def test_when_blocks_run_out_the_latest_is_preempted_and_still_finishes() -> None:
    run = Run(replace(OPTIONS, kv_blocks=6))
    first, second = run.submit(8, 16), run.submit(8, 16)
    run.to_the_end()
    assert run.engine.preemptions > 0
    assert (len(run.times[first]), len(run.times[second])) == (16, 16)
    assert run.times[first][-1] < run.times[second][-1]
    assert run.engine.prompt_tokens == 16
    assert run.engine.generation_tokens == 32


def test_the_preempted_goes_before_those_who_wait() -> None:
    run = Run(replace(OPTIONS, kv_blocks=6, max_num_seqs=2))
    run.submit(8, 16)
    preempted, waiting = run.submit(8, 16), run.submit(8, 1)
    run.to_the_end()
    assert run.engine.preemptions > 0
    assert run.times[preempted][-1] < run.times[waiting][-1]


def test_what_could_never_run_is_refused() -> None:
    run = Run(replace(OPTIONS, kv_blocks=2))
    with pytest.raises(ValueError, match="more KV blocks"):
        run.submit(8, 1)


def test_a_paused_engine_takes_in_and_computes_nothing() -> None:
    run = Run(OPTIONS)
    early = run.submit(1, 50)
    run.until(2.0)
    got = len(run.times[early])
    run.engine.pause()
    late = run.submit(1, 1)
    assert run.engine.due is None
    assert run.engine.advance(3.0) == []
    assert run.engine.running == 2
    run.now = 10.0
    run.engine.resume(run.now)
    run.to_the_end()
    assert got > 0
    assert len(run.times[early]) == 50
    assert run.times[early][got] >= 10.0
    assert run.times[late][0] >= 10.0


def test_a_pace_slows_one_and_not_the_others() -> None:
    run = Run(OPTIONS)
    slow, other = run.submit(10, 3, pace=3.0), run.submit(10, 3)
    run.to_the_end()
    assert run.times[other] == approx(1.1, 1.2, 1.3)
    # Three times ttft_s and prefill, then three times the gap.
    assert run.times[slow] == approx(3.3, 3.6, 3.9)


def test_a_pooled_model_computes_and_generates_nothing() -> None:
    run = Run(OPTIONS)
    pooled = run.submit(20, 0)
    run.to_the_end()
    assert run.times[pooled] == approx(1.2)
    assert pooled.phase is Phase.DONE
    assert (pooled.generated, run.engine.generation_tokens) == (0, 0)


def test_no_time_at_all_still_comes_to_an_end() -> None:
    run = Run(replace(OPTIONS, ttft_s=0.0, itl_s=0.0, prefill_s_per_token=0.0))
    sequence = run.submit(5, 100)
    run.to_the_end()
    assert len(run.times[sequence]) == 100
    assert run.now == 0.0
