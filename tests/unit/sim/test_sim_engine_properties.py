"""Whatever is asked of an engine, it loses no sequence, no token and no block."""

from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.sim import Engine, EngineOptions, Phase, Sequence

REQUESTS = st.lists(
    st.tuples(
        st.integers(1, 40),  # prompt tokens
        st.integers(0, 30),  # output tokens
        st.integers(0, 3),  # which prefix
        st.integers(0, 60),  # advances before it comes
        st.integers(0, 40) | st.none(),  # advances until it is aborted
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=80, deadline=None)
@given(requests=REQUESTS, places=st.integers(1, 5), blocks=st.integers(20, 30), chunk=st.integers(1, 20))
def test_everything_ends_and_everything_is_given_back(
    requests: list[tuple[int, int, int, int, int | None]], places: int, blocks: int, chunk: int
) -> None:
    engine: Engine[Sequence] = Engine(
        EngineOptions(max_num_seqs=places, kv_blocks=blocks, block_size=4, max_batched_tokens=chunk)
    )
    coming = sorted(requests, key=lambda request: request[3])
    got: dict[Sequence, int] = {}
    aborts: list[tuple[int, Sequence]] = []
    aborted: set[Sequence] = set()
    now, turn = 0.0, 0
    while coming or engine.due is not None:
        turn += 1
        assert turn < 20_000
        while coming and coming[0][3] <= turn:
            prompt, output, prefix, _, abort_after = coming.pop(0)
            sequence = Sequence(
                prompt, output, blocks=[prefix * 100 + index for index in range((prompt + output) // 4)]
            )
            got[sequence] = 0
            engine.submit(sequence, now)
            if abort_after is not None:
                aborts.append((turn + abort_after, sequence))
        for at, sequence in aborts:
            if at == turn and engine.abort(sequence, now):
                aborted.add(sequence)
        now = now if engine.due is None else max(now, engine.due)
        for sequence in engine.advance(now):
            assert sequence not in aborted
            got[sequence] += 1
        assert engine.running <= places
        assert engine.blocks.used + engine.blocks.cached <= blocks
    assert (engine.running, engine.waiting, engine.blocks.used) == (0, 0, 0)
    for sequence, tokens in got.items():
        assert sequence.phase is Phase.DONE
        if sequence not in aborted:
            assert tokens == max(sequence.output_tokens, 1)
