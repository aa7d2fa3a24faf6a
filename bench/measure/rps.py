"""The most requests a second that one core of proxy answers: 64 clients, each sending again as soon as it is answered.

`busy` is the share of its core that the proxy used. Below about 95 % the load generator or the upstream was the limit
(on two cores they share one), and the proxy could do more than the figure says.
"""

from bench.loadgen import check_all_answered
from bench.measure.base import Figure, Measure
from bench.session import Running, Session, Values


def take(session: Session, up: Running) -> Values:
    scale = session.scale
    with session.measuring(up) as measured:
        report = session.load.run("closed", port=up.port, clients=scale.rps_clients, seconds=scale.rps_s)
    check_all_answered(report)
    rps = report["ok"] / report["elapsed_s"]
    if up.process is None:
        return {"rps": rps}
    return {
        "rps": rps,
        "busy": 100 * measured.cpu_s / report["elapsed_s"],
        "cpu_us": measured.cpu_s * 1e6 / report["ok"],
        "others_share": measured.others_share,
    }


MEASURE = Measure(
    name="rps",
    title="Most requests a second on one core (64 clients, closed loop)",
    figures=(
        Figure("rps", "requests/s", 0, ratios=True),
        Figure("busy", "proxy core busy %", 0),
        Figure("cpu_us", "CPU us/request"),
    ),
    rounds=lambda scale: scale.rps_rounds,
    take=take,
    direct=True,
)
