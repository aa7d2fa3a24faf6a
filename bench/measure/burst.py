"""2,000 clients connect in the same moment and send one request each, which the upstream thinks about for 50 ms.

All must be answered 200. The time until the last answer shows whether a listen queue overflowed: a lost SYN is sent
again after a second.
"""

from bench.measure.base import Figure, Measure
from bench.session import Running, Session, Values


def take(session: Session, up: Running) -> Values:
    clients = up.scaled(session.scale.burst_clients)
    report = session.load.run("burst", port=up.port, clients=clients, ttft_us=50_000, limit_s=20.0)
    return {
        "answered": report["ok"],
        "of": clients,
        "last_ms": report["latency_us"].get("max", 0.0) / 1e3,
        "p50_ms": report["latency_us"].get("p50", 0.0) / 1e3,
    }


MEASURE = Measure(
    name="burst",
    title="2,000 clients at once",
    figures=(
        Figure("answered", "answered 200", 0),
        Figure("of", "of", 0),
        Figure("p50_ms", "p50 ms", 0),
        Figure("last_ms", "last answer ms", 0),
    ),
    rounds=lambda scale: scale.burst_rounds,
    take=take,
)
