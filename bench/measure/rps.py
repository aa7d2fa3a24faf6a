"""The most requests a second that one core of proxy answers, and the CPU each of them costs then.

64 clients, each sending again as soon as it is answered. The targets are judged by this CPU figure: no sleeping core
has to be woken up, which costs all proxies the same (see `requests`).

`busy` is the share of its core that the proxy used. Below about 95 % the load generator or the upstream was the limit
(on two cores they share one), and the proxy could do more than the figure says. New upstream connections should be
near none: a proxy that reconnects for each request works, and wastes most of what it could do.
"""

from bench.loadgen import check_all_answered
from bench.measure.base import Figure, Measure
from bench.session import Running, Session, Values


def take(session: Session, up: Running) -> Values:
    scale = session.scale
    connections = session.upstream_connections()
    with session.measuring(up) as measured:
        report = session.load.run("closed", port=up.port, clients=scale.rps_clients, seconds=scale.rps_s)
    check_all_answered(report)
    connections = session.upstream_connections() - connections - len(session.upstream_ports)
    rps = report["ok"] / report["elapsed_s"]
    if up.process is None:
        return {"rps": rps}
    return {
        "rps": rps,
        "busy": 100 * measured.cpu_s / report["elapsed_s"],
        "cpu_us": measured.cpu_s * 1e6 / report["ok"],
        "upstream_connections": 1000 * connections / report["ok"],
        "others_share": measured.others_share,
    }


MEASURE = Measure(
    name="rps",
    title="Most requests a second on one core (64 clients, closed loop)",
    figures=(
        Figure("rps", "requests/s", 0),
        Figure("busy", "proxy core busy %", 0),
        Figure("cpu_us", "CPU us/request", ratios=True),
        Figure("upstream_connections", "new upstream conns/1,000"),
    ),
    rounds=lambda scale: scale.rps_rounds,
    take=take,
    direct=True,
)
