"""Added time to first token: one stream after the other on one connection, in turns with the bare upstream.

The upstream sends its head at once and the first chunk 5 ms later, as an engine does. What a proxy adds is the
difference to `direct` in the same round, percentile by percentile (`report.added`).
"""

from bench.loadgen import check_all_answered
from bench.measure.base import Figure, Measure
from bench.session import Running, Session, Values


def take(session: Session, up: Running) -> Values:
    scale = session.scale
    with session.measuring(up):
        report = session.load.run(
            "closed",
            port=up.port,
            clients=1,
            count=scale.ttft_requests,
            stream=1,
            chunks=2,
            chunk_rate=1000,
            ttft_us=scale.ttft_engine_ms * 1000,
        )
    check_all_answered(report)
    return {"p50_us": report["ttft_us"]["p50"], "p99_us": report["ttft_us"]["p99"]}


MEASURE = Measure(
    name="ttft",
    title="Time to first token (the upstream takes 5 ms)",
    figures=(Figure("p50_us", "TTFT p50 us", 0, added=True), Figure("p99_us", "TTFT p99 us", 0, added=True)),
    rounds=lambda scale: scale.ttft_rounds,
    take=take,
    direct=True,
)
