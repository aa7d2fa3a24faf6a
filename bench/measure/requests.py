"""Proxy CPU per non-stream request, at a fixed rate that every peer can take.

Open loop: requests leave on schedule whatever the answers do, so all peers do the same work in the same time, and a
slow one cannot look cheap by being asked less. One request at a time wakes the proxy up, and it wakes the upstream
and the client up, as with real traffic. Waking a sleeping core is dear (tens of microseconds on a virtual machine)
and costs every proxy the same, so ratios come out smaller here than at full load (`rps`), where nobody sleeps.
"""

from bench.loadgen import check_all_answered
from bench.measure.base import Figure, Measure
from bench.session import Running, Session, Values


def take(session: Session, up: Running) -> Values:
    scale = session.scale
    rate = up.scaled(scale.requests_per_s)
    with session.measuring(up) as measured:
        report = session.load.run(
            "open", port=up.port, clients=scale.requests_clients, per_second=rate, count=round(rate * scale.requests_s)
        )
    check_all_answered(report)
    return {
        "cpu_us": measured.cpu_s * 1e6 / report["ok"],
        "latency_p50_us": report["latency_us"]["p50"],
        "latency_p99_us": report["latency_us"]["p99"],
        "others_share": measured.others_share,
    }


MEASURE = Measure(
    name="requests",
    title="Non-stream requests (2,000 a second, open loop)",
    figures=(
        Figure("cpu_us", "CPU us/request", ratios=True),
        Figure("latency_p50_us", "latency p50 us", 0),
        Figure("latency_p99_us", "latency p99 us", 0),
    ),
    rounds=lambda scale: scale.requests_rounds,
    take=take,
)
