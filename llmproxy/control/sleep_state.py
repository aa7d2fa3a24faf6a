"""Is the engine asleep or paused although its /health says 200? Then it takes requests and never answers them.

Three places know, none is everywhere. `/is_sleeping` and `/is_paused` cost little and are authoritative (a half
woken engine still says asleep), but vLLM serves them in dev mode only. The gauge

    vllm:engine_sleep_state{engine="0",model_name="m",sleep_state="awake"} 1.0

(`sleep_state` is one of awake, weights_offloaded, discard_all; exactly one is 1) is always served, but knows
nothing of pauses and sits in a page of a hundred kilobytes. So: the routes first, and the gauge only where the
sleep route is missing, as the scraper read it a moment ago or, where it does not, by reading the page here. What is
missing is not asked for again for `ABSENT_FOR_S`.

vLLM passes the routes' question on to its engine process. One that finishes its work after SIGTERM lets them fail with
a 500; once it has ended, vLLM waits for an answer that never comes, and because of that never ends itself. So after a
5xx the question is not put again for `TROUBLED_FOR_S`, and the last answer stands.
"""

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from llmproxy.core.clock import Clock

ABSENT_FOR_S = 300.0
TROUBLED_FOR_S = 60.0
METRICS_MAX_BYTES = 4 * 1024 * 1024
FLAG_MAX_BYTES = 4096
_METRIC = b"vllm:engine_sleep_state{"
_AWAKE = re.compile(rb'[{,]sleep_state="awake"')


class Reader(Protocol):
    """Takes an answer's body in pieces."""

    def feed(self, data: bytes) -> bool:
        """True when it has seen enough and the rest need not be read."""


Fetch = Callable[[str, Reader], Awaitable[int]]
"""GET a path of the backend, feed the body of a 200 to the reader, return the status; raise when there is no answer."""


class SleepUnknownError(Exception):
    """A route that exists could not say (it answered 5xx), now or a short while ago."""


@dataclass(slots=True)
class SleepGauge:
    """Finds `vllm:engine_sleep_state` in a metrics page. `value` is None while nothing was found.

    With several engines behind one server (data parallel) it is asleep when all of them are.
    """

    value: bool | None = None
    _rest: bytes = b""
    _fed_bytes: int = 0

    def feed(self, data: bytes) -> bool:
        """True behind the metric (its samples stand together), or when the page is absurdly long."""
        self._fed_bytes += len(data)
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            if line.startswith(_METRIC):
                self._sample(line)
            elif self.value is not None:
                return True
        return self._fed_bytes >= METRICS_MAX_BYTES

    def _sample(self, line: bytes) -> None:
        labels, _, value = line.rpartition(b"}")
        if not _AWAKE.search(labels):
            return
        try:
            asleep = float(value.split()[0]) <= 0
        except (ValueError, IndexError):
            return
        self.value = asleep and self.value is not False


@dataclass(slots=True)
class Flag:
    """Reads `{"<name>": true}`. `value` stays None for anything else (a catch-all web page, say)."""

    name: str
    value: bool | None = None
    _text: bytes = b""

    def feed(self, data: bytes) -> bool:
        self._text += data
        try:
            answer = json.loads(self._text)
        except ValueError:
            return len(self._text) > FLAG_MAX_BYTES
        found = answer.get(self.name) if isinstance(answer, dict) else None
        self.value = found if isinstance(found, bool) else None
        return True


@dataclass(slots=True)
class SleepCheck:
    """What is known of one backend's sleep, kept between probes."""

    clock: Clock
    asleep: bool = False
    """The last answer. It stands while newer ones fail to come, so that no timeout wakes a sleeping engine."""
    _absent_until: dict[str, float] = field(default_factory=dict)
    _troubled_until: float = 0.0

    def forget(self) -> None:
        """The server may have been restarted, with other options: ask everything again."""
        self.asleep = False
        self._absent_until.clear()
        self._troubled_until = 0.0

    async def ask(self, fetch: Fetch, gauge: bool | None = None) -> bool:
        """Whether it is asleep or paused; a server that cannot say is awake. `gauge` is what its metrics are known to
        say of it. Raises what `fetch` raises."""
        if self.clock() < self._troubled_until:
            raise SleepUnknownError("it could not say a short while ago")
        sleeping = await self._read(fetch, "/is_sleeping", Flag("is_sleeping"))
        paused = None if sleeping else await self._read(fetch, "/is_paused", Flag("is_paused"))
        if sleeping is None and not paused:
            sleeping = gauge if gauge is not None else await self._read(fetch, "/metrics", SleepGauge())
        self.asleep = bool(sleeping or paused)
        return self.asleep

    async def _read(self, fetch: Fetch, path: str, reader: Flag | SleepGauge) -> bool | None:
        if self.clock() < self._absent_until.get(path, 0.0):
            return None
        status = await fetch(path, reader)
        if status >= 500:
            self._troubled_until = self.clock() + TROUBLED_FOR_S
            raise SleepUnknownError(f"{path} answered {status}")
        if reader.value is None:
            self._absent_until[path] = self.clock() + ABSENT_FOR_S
        return reader.value
