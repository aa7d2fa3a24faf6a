"""Coasting only saves work: whoever does not look at each token sees the same with it as without."""

from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.sim import Engine, EngineOptions, Phase, Sequence

REQUESTS = st.lists(
    st.tuples(
        st.integers(1, 40),  # prompt tokens
        st.integers(1, 60),  # output tokens
        st.integers(0, 3),  # which prefix
        st.floats(0.0, 2.0, allow_nan=False),  # seconds after the one before
    ),
    min_size=1,
    max_size=25,
)
Seen = list[tuple[float, int, str]]


def replay(options: EngineOptions, requests: list[tuple[int, int, int, float]], coasting: bool) -> tuple[Seen, int]:
    """When each sequence got its first and its last token; and how often the engine was called."""
    engine: Engine[Sequence] = Engine(options)
    seen: Seen = []
    arrivals, at = [], 0.0
    for prompt, output, prefix, gap in requests:
        at += gap
        blocks = [prefix * 100 + number for number in range((prompt + output) // 4)]
        arrivals.append((at, Sequence(prompt, output, blocks=blocks)))
    numbers = {sequence: number for number, (_, sequence) in enumerate(arrivals)}
    calls = 0
    while arrivals or engine.due is not None:
        coming = arrivals[0][0] if arrivals else float("inf")
        due = engine.due
        if due is None or coming <= due:
            seen.append((coming, 0, str(engine.published)))
            engine.submit(arrivals.pop(0)[1], coming)
            seen.append((coming, engine.generation_tokens, f"{engine.running} {engine.waiting} {engine.blocks.used}"))
        else:
            calls += 1
            for sequence in engine.advance(due):
                if sequence.generated == 1 or sequence.phase is Phase.DONE:
                    seen.append((due, numbers[sequence], f"{sequence.generated} {sequence.cached_tokens}"))
        if coasting:
            engine.coast(arrivals[0][0] if arrivals else float("inf"))
    seen.append((0.0, engine.preemptions, ""))
    return seen, calls


@settings(max_examples=60, deadline=None)
@given(requests=REQUESTS, places=st.integers(1, 5), blocks=st.integers(25, 40), chunk=st.integers(1, 20))
def test_first_and_last_tokens_come_at_the_same_moment(
    requests: list[tuple[int, int, int, float]], places: int, blocks: int, chunk: int
) -> None:
    options = EngineOptions(max_num_seqs=places, kv_blocks=blocks, block_size=4, max_batched_tokens=chunk)
    assert replay(options, requests, coasting=True)[0] == replay(options, requests, coasting=False)[0]


def test_a_long_answer_takes_few_calls() -> None:
    options = EngineOptions(block_size=16)
    (seen, calls), (same, each) = (replay(options, [(10, 400, 0, 0.0)], coasting) for coasting in (True, False))
    assert seen == same
    assert each >= 400
    assert calls < 40


def test_it_stops_before_the_given_moment() -> None:
    engine: Engine[Sequence] = Engine(EngineOptions(itl_s=0.1, ttft_s=0.0, prefill_s_per_token=0.0))
    lone = Sequence(1, 1000)
    engine.submit(lone, 0.0)
    engine.advance(0.0)
    engine.advance(0.0)
    assert lone.generated == 1
    engine.coast(1.0)
    assert engine.due is not None
    assert engine.due >= 1.0
    # The step that ends at 1.0, or a rounding error before it, is not yet over.
    assert lone.generated in (10, 11)


def test_it_waits_for_a_prompt_that_is_to_be_computed() -> None:
    engine: Engine[Sequence] = Engine(EngineOptions(ttft_s=0.0))
    engine.submit(Sequence(1, 1000), 0.0)
    engine.advance(0.0)
    engine.advance(engine.due or 0.0)
    late = Sequence(5, 1)
    engine.submit(late, 0.0)
    due = engine.due
    engine.coast(100.0)
    assert engine.due == due


def test_a_sequence_waits_until_a_step_has_tokens_for_it() -> None:
    engine: Engine[Sequence] = Engine(EngineOptions(ttft_s=0.0, max_batched_tokens=10))
    first, second = Sequence(15, 3), Sequence(15, 3)
    for sequence in (first, second):
        engine.submit(sequence, 0.0)
    assert (engine.running, engine.untouched) == (2, 2)
    engine.advance(0.0)
    assert engine.untouched == 1
    engine.advance(engine.due or 0.0)
    assert engine.untouched == 0


def test_who_stood_behind_one_that_did_not_fit_gets_its_place_when_that_one_is_aborted() -> None:
    engine: Engine[Sequence] = Engine(EngineOptions(kv_blocks=10, block_size=4))
    first, large, small = Sequence(24, 1), Sequence(30, 1), Sequence(8, 1)
    for sequence in (first, large, small):
        engine.submit(sequence, 0.0)
    assert (engine.running, engine.waiting) == (1, 2)
    assert engine.abort(large, 0.0)
    assert (engine.running, engine.waiting) == (2, 0)
