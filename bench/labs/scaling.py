"""The autoscaler live: engines as processes that take five seconds to start, and a load that goes up and down again.

    10 -> 50 -> 100 -> 10 requests/s; a replica serves 20, so 1 to 6 are needed

It begins at zero replicas, and while the load rises one replica is killed. What ran there in mid-answer is lost with it
(and says so), everything else must succeed. The law's times are shortened with the load's: what is let go after five
minutes in real traffic goes after 15 s here, and what waits is dug off in 5 s instead of 30. Its average over 60 s is
not, so it sees a ramp of half a minute late, by the queue: the wait is what that costs.
"""

import asyncio
import json
import os
import re
import signal
import time
from contextlib import suppress
from datetime import datetime
from typing import Any

from bench.labs.arrivals import Arrivals
from bench.labs.base import Finding, Lab, never, no_less_than, no_more_than, percentile
from bench.labs.client import Client
from bench.labs.failure import LabFailed
from bench.labs.fleet import Fleet, fleet
from bench.labs.scaling_course import Course
from bench.labs.stage import ConfigFile, Stage, metric, until

_STARTUP_S = 5
_SLOTS = 16
_TOKENS = 10
_ITL_MS = 80
_REPLICA_PER_S = 20.0
_LOW, _MIDDLE, _HIGH = 10.0, 50.0, 100.0
_DRAIN_MAX_S = 20.0
_PLAY_MAX_S = 225.0
"""It takes 180 s; then time is left to say where it stood, and to end it."""
_ASK_MAX_S = 3.0
_LEGS_S = {"low": 5.0, "up": 25.0, "further up": 30.0, "high": 10.0, "down": 12.0, "low again": 85.0}
_ENGINE = (
    f"--ttft 0 --itl {_ITL_MS} --prefill 0 --slowdown 0 --max-num-seqs {_SLOTS} --startup {_STARTUP_S} "
    "--shutdown-timeout 2"
).split()
_SCALING = {
    "min": 0,
    "max": 8,
    "interval": "1s",
    "drain": f"{_DRAIN_MAX_S:g}s",
    "max_concurrency": _SLOTS,
    "capacity": {"requests_per_s": _REPLICA_PER_S},
    "policies": [{"demand": {"hold": "15s", "dig_off": "5s"}}, "forecast"],
    "behavior": {"down": {"window": "5s"}},
}


async def run(stage: Stage) -> list[Finding]:
    config = stage.config([])
    async with fleet(stage, config.path.with_suffix(".engines"), _ENGINE, _SCALING, config) as there:
        course, load = Course(), Arrivals(there.proxy.port, tokens=_TOKENS)
        try:
            async with asyncio.timeout(_PLAY_MAX_S):
                return await _held(stage, there, config, course, load)
        except (TimeoutError, LabFailed) as error:
            what = f"not over after {_PLAY_MAX_S:g} s" if isinstance(error, TimeoutError) else str(error)
            raise LabFailed(f"{what}\n{await _state(there, course, load)}") from error


async def _state(there: Fleet, course: Course, load: Arrivals) -> str:
    """Where everything stands, as far as it can be learned."""
    under_way = {id: answer.sent_at for id, answer in load.answers.items() if not answer.over.is_set()}
    decisions = b""
    with suppress(TimeoutError, OSError):
        async with asyncio.timeout(_ASK_MAX_S), await Client.open(there.proxy.admin_port) as admin:
            decisions = await admin.get("/admin/scaling/lab/decisions")
    return course.told(under_way, decisions, there.proxy.said)


async def _held(stage: Stage, there: Fleet, config: ConfigFile, course: Course, load: Arrivals) -> list[Finding]:
    admin = await stage.client(there.proxy.admin_port)
    first = await load.ask()
    if first.status != 200:
        raise LabFailed(f"the first request: status {first.status}: {first.body[-200:]!r}")
    watching = asyncio.create_task(_watch(await stage.client(there.proxy.admin_port), course))
    try:
        killed, dead, repaired_s = await _play(load, there, course)
    finally:
        watching.cancel()
    await load.end()
    await until(lambda: len(config.log()) >= len(load.answers), "the access log")
    page = await admin.get("/metrics")
    starts = {result: metric(page, "llmproxy_scaling_starts_total", result=result) for result in ("ok", "failed")}
    lost = {id for id in load.flaws if load.answers.get(id) is not None and load.answers[id].backend == killed}
    told = [id for id in lost if load.answers[id].ends_with_an_error_event()]
    log = config.log()
    retried = [line["request_id"] for line in log if line["retries"]]
    up, down = (course.legs["up"][0], course.legs["high"][0]), (course.legs["down"][0], course.legs["low again"][1])
    high, end = course.legs["high"], course.legs["low again"][1]
    waits = [line["queue_ms"] or 0.0 for line in log if line["request_id"] != "r1"]
    removed = re.findall(r"stopping (\S+): (.*)", there.proxy.said)
    undrained = [f"{id}: {why}" for id, why in removed if why != "drained, or given up"]
    given_up = [f"{id}: {took_s:.1f} s" for id, took_s in course.drained_s.items() if took_s >= _DRAIN_MAX_S - 1]
    late = re.findall(r"replica \S+ has not come up.*", there.proxy.said)
    print("serving/wanted:", ", ".join(course.changes()))
    return [
        no_more_than("from zero: the first answer, with a start of 5 s", first.ended_at - first.sent_at, 15, "s"),
        no_less_than("requests", len(load.answers), 4500),
        never(
            "failed, but for answers the killed replica was giving",
            (f"{i}: {load.flaws[i]}" for i in load.flaws.keys() - lost),
        ),
        no_more_than("answers lost with the killed replica", len(lost), _SLOTS),
        never("of these, not told so", (load.flaws[id] for id in lost if id not in told)),
        no_less_than("replicas at the height", max(course.serving(*high)), 5),
        no_more_than("replicas at the height", max(course.serving(high[0], end)), 8),
        no_more_than("replicas in the end", course.serving(end - 2, end + 1)[-1], 2),
        never("legs with more than one change of direction", course.restless(1)),
        no_more_than("changes of direction on the way up", course.turns(*up), 1),
        no_more_than("changes of direction on the way down", course.turns(*down), 1),
        no_less_than("replicas removed", len(removed), 3),
        never("of these, not drained", [*undrained, *given_up, *late]),
        never("retried, but for those at the killed one", _not_at(log, retried, dead)),
        no_more_than("until the killed one is replaced", repaired_s, 20, "s"),
        never("starts that failed", ["start"] * int(starts["failed"])),
        no_more_than("wait for a place, p99, against a start", percentile(waits, 99), _STARTUP_S * 1000, "ms"),
    ]


def _not_at(log: list[dict[str, Any]], retried: list[str], dead: float) -> list[str]:
    """Retries that have nothing to do with the kill: of requests that were not there in that second."""
    found = []
    for line in log:
        ended = datetime.fromisoformat(line["time"]).timestamp()
        came = ended - line["duration_ms"] / 1e3
        if line["request_id"] in retried and not came - 1 <= dead <= ended + 1:
            found.append(f"{line['request_id']}: {line['retries']}")
    return found


async def _play(load: Arrivals, there: Fleet, course: Course) -> tuple[str, float, float]:
    """The whole load, and a replica's death on the way up. Who, when (Unix time), and how long until it is replaced."""
    killing: asyncio.Task[tuple[str, float, float]] | None = None
    for name, (rate_from, rate_to) in {
        "low": (_LOW, _LOW),
        "up": (_LOW, _MIDDLE),
        "further up": (_MIDDLE, _HIGH),
        "high": (_HIGH, _HIGH),
        "down": (_HIGH, _LOW),
        "low again": (_LOW, _LOW),
    }.items():
        course.leg, seconds, begin = name, _LEGS_S[name], time.monotonic()
        if name == "further up":
            killing = asyncio.create_task(_kill(there, course, 8.0))
        await load.run(lambda t: rate_from + (rate_to - rate_from) * t / seconds, seconds)  # noqa: B023
        course.legs[name] = begin, time.monotonic()
    assert killing is not None
    return await killing


async def _kill(there: Fleet, course: Course, after_s: float) -> tuple[str, float, float]:
    await asyncio.sleep(after_s)
    wanted = course.rows[-1][1]
    id, pid = next((id, pid) for id, pid in there.processes().items() if id in course.serve_now)
    os.killpg(pid, signal.SIGKILL)
    dead, began = time.time(), time.monotonic()
    await until(
        lambda: id not in course.serve_now and len(course.serve_now) >= wanted, "another in the killed one's place"
    )
    return id, dead, time.monotonic() - began


async def _watch(admin: Client, course: Course) -> None:
    while True:
        course.saw(json.loads(await admin.get("/admin/scaling/lab")), time.monotonic())
        await asyncio.sleep(0.2)


LAB = Lab("scaling", "Replicas follow a load that rises and falls", run, limit_s=270.0)
