"""Five times what the engines can do, for a while: what is still answered, who gets it, and what is left afterwards.

Four emulated engines answer `_TOKENS` tokens in a known time, and take `_PLACES` requests each, so capacity is known
too; it is measured beside that with as many clients as there are places. Then requests come on schedule whatever the
answers do: a tenth of the capacity's worth of each kind, five times of all. One in ten is of a tier with high priority,
which alone would be half of the capacity. What is answered within the objective counts, shed or late counts as lost.
Once with a routing policy that knows what prompts take, and once with one that does not.
"""

import asyncio
import json
import time
from collections import deque
from dataclasses import dataclass, field
from functools import partial

from bench.labs.answer import Answer
from bench.labs.base import Finding, Lab, ms, no_less_than, no_more_than, percentile
from bench.labs.client import Client
from bench.labs.failure import LabFailed
from bench.labs.processes import Proxy
from bench.labs.stage import Stage, until
from bench.procfs import resident_bytes

_ENGINES = 4
_PLACES = 8
_TTFT_MS = 100
_ITL_MS = 20
_TOKENS = 11
_SERVICE_S = (_TTFT_MS + (_TOKENS - 1) * _ITL_MS) / 1000
_CAPACITY = _ENGINES * _PLACES / _SERVICE_S
_TIMES = 5
_PEAK_S = 5.0
_OVERLOAD_S = 60.0
_SETTLED_S = 10.0
"""When memory is looked at first: connections are open by then."""
_SLO_TTFT_S = 2.0
_AT_ONCE_MS = 50
"""By the proxy's own account: who waited longer was not shed on arrival."""
_HIGH_EVERY = 10
_CROWD = 50
_CONNECTIONS = 1500
_SECTIONS = {
    "keys": [
        {"name": "acme", "tier": "enterprise", "value": "sk-high"},
        *({"name": f"dev{number}", "tier": "trial", "value": f"sk-low-{number}"} for number in range(8)),
    ],
    "tiers": {"enterprise": {"priority": "high"}, "trial": {"priority": "low"}},
}
_POOL = {
    "queue": {"max": 400, "tenant_max": 100, "wait": "10s"},
    "admission": {"slo": {"ttft": f"{_SLO_TTFT_S}s"}},
}


@dataclass
class Tally:
    """What became of one kind of requests."""

    sent: int = 0
    good: int = 0
    late: int = 0
    refused_s: list[float] = field(default_factory=list)
    """Of those that were shed, but for those who had waited until it was too late: how long their refusals took."""
    flaws: list[str] = field(default_factory=list)

    def count(self, answer: Answer) -> None:
        took_s = answer.ended_at - answer.sent_at
        if answer.status == 503:
            if took_s < _SLO_TTFT_S / 2:
                self.refused_s.append(took_s)
            if "retry-after" not in answer.headers:
                self.flaws.append("shed without Retry-After")
        elif (flaw := answer.flaw(_TOKENS, stream=True)) is not None:
            self.flaws.append(flaw)
        elif answer.first_at - answer.sent_at > _SLO_TTFT_S:
            self.late += 1
        else:
            self.good += 1


class Crowd:
    """Clients on kept connections, one taken for each request."""

    def __init__(self, stage: Stage, port: int) -> None:
        self._stage = stage
        self._port = port
        self._idle: deque[Client] = deque()
        self._open = 0
        self._asking: set[asyncio.Task[None]] = set()

    async def ask(self, key: str, tally: Tally) -> None:
        while self._idle and not self._idle[0].usable:
            self._idle.popleft()
            self._open -= 1
        if self._idle:
            client = self._idle.popleft()
        elif self._open < _CONNECTIONS:
            self._open += 1
            client = await self._stage.client(self._port)
        else:
            raise LabFailed("more requests are open than should be")
        tally.sent += 1
        answer = client.chat(_TOKENS, key=key)
        await answer.over.wait()
        tally.count(answer)
        self._idle.append(client)

    async def open_loop(self, per_s: float, seconds: float, high: Tally, low: Tally) -> float:
        """So many a second on schedule; how long that took."""
        begun, sent, count = time.monotonic(), 0, round(per_s * seconds)
        while sent < count:
            due = min(count, int((time.monotonic() - begun) * per_s))
            for _ in range(min(due - sent, _CROWD)):
                is_high = sent % _HIGH_EVERY == 0
                key = "sk-high" if is_high else f"sk-low-{sent % 8}"
                task = asyncio.create_task(self.ask(key, high if is_high else low))
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)
                sent += 1
            await asyncio.sleep(0.002)
        return time.monotonic() - begun

    async def answered(self) -> None:
        while self._asking:
            await asyncio.gather(*self._asking)


async def _peak(stage: Stage, port: int) -> float:
    """Good answers a second with as many clients as there are places, and a few to follow on."""
    tally, ends_at = Tally(), time.monotonic() + _PEAK_S
    crowd = Crowd(stage, port)

    async def one() -> None:
        while time.monotonic() < ends_at:
            await crowd.ask("sk-high", tally)

    begun = time.monotonic()
    await asyncio.gather(*(one() for _ in range(_ENGINES * _PLACES + 4)))
    if tally.flaws or tally.refused_s:
        raise LabFailed(f"not even at capacity: {tally.flaws[:3]}, shed {len(tally.refused_s)}")
    return tally.good / (time.monotonic() - begun)


async def _waiting(admin: Client) -> int:
    return int(json.loads(await admin.get("/admin/queue"))["pools"]["lab"]["waiting"])


async def _recovered_s(stage: Stage, proxy: Proxy, admin: Client) -> float:
    """From the end of the flood until nobody waits and an answer begins as fast as ever."""
    begun = time.monotonic()
    client = await stage.client(proxy.port)

    async def calm() -> bool:
        if await _waiting(admin):
            return False
        answer = client.chat(1, key="sk-low-1")
        await answer.over.wait()
        return answer.status == 200 and answer.first_at - answer.sent_at < 2 * _TTFT_MS / 1000

    await until(calm, "calm")
    return time.monotonic() - begun


async def _run(policy: str, stage: Stage) -> list[Finding]:
    options = ["--ttft", str(_TTFT_MS), "--itl", str(_ITL_MS)]
    engines = await stage.engines(*[options] * _ENGINES)
    config = stage.config(
        engines, each={"max_concurrency": _PLACES}, pool={"policy": policy, **_POOL}, sections=_SECTIONS
    )
    proxy = await stage.proxy(config)
    admin = await stage.client(proxy.admin_port)
    peak = await _peak(stage, proxy.port)
    high, low, crowd = Tally(), Tally(), Crowd(stage, proxy.port)
    rate = _TIMES * _CAPACITY
    first_s = await crowd.open_loop(rate, _SETTLED_S, high, low)
    settled_bytes = resident_bytes(proxy.process.pid)
    took_s = first_s + await crowd.open_loop(rate, _OVERLOAD_S - _SETTLED_S, high, low)
    grown_bytes = resident_bytes(proxy.process.pid) - settled_bytes
    recovered_s = await _recovered_s(stage, proxy, admin)
    await crowd.answered()
    refused_s = high.refused_s + low.refused_s
    goodput = (high.good + low.good) / took_s
    flaws = tuple(dict.fromkeys(high.flaws + low.flaws))
    sent = high.sent + low.sent
    waits_ms = [line.get("queue_ms") or 0.0 for line in config.log() if line["status"] == 503]
    told = sum(wait_ms < _AT_ONCE_MS for wait_ms in waits_ms)
    late = high.late + low.late
    return [
        no_less_than(f"offered, of a capacity of {_CAPACITY:.0f}", sent / took_s, 4 * _CAPACITY, "/s"),
        no_less_than(f"goodput, of a peak of {peak:.0f}/s", 100 * goodput / peak, 90, "%"),
        no_less_than("high tier answered in time", 100 * high.good / high.sent, 95, "%"),
        no_less_than("shed on arrival, of all that were shed", 100 * told / max(1, len(waits_ms)), 90, "%"),
        no_more_than("a refusal on arrival, p99", ms(percentile(refused_s, 99)), 50, "ms"),
        no_more_than("late, of those answered", 100 * late / (late + high.good + low.good), 10, "%"),
        no_more_than("memory that came in the last 30 s", grown_bytes / 2**20, 10, "MiB"),
        no_more_than("recovery", recovered_s, 5, "s"),
        Finding("other failures", len(high.flaws + low.flaws), 0, notes=flaws[:5]),
    ]


_TITLE = f"{_TIMES} times the capacity for {_OVERLOAD_S:g} s"
LAB = Lab("overload", _TITLE, partial(_run, "expected_cost"), limit_s=150.0, on_request=True)
BLIND_LAB = Lab(
    "overload-blind", f"{_TITLE}, without estimates", partial(_run, "least_connections"), limit_s=150.0, on_request=True
)
