"""What the routes of one emulated server share."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from llmproxy.emulator.body import Limits
from llmproxy.emulator.choice import Choice
from llmproxy.emulator.dialects.answer import Answer
from llmproxy.emulator.driver import Driver
from llmproxy.emulator.errors import ENGINE_BUSY, SHUT_DOWN, ApiError, model_not_found
from llmproxy.emulator.faults import FaultBoard
from llmproxy.emulator.options import EmulatorOptions
from llmproxy.emulator.stats import Stats
from llmproxy.sim import Engine, Phase

STORED_MAX = 256


class Work(Protocol):
    """A generation, as those see it who look after all of them."""

    @property
    def answer(self) -> Answer: ...

    def cancel(self) -> None:
        """The client left, or cancelled its work in the background."""

    def abort(self) -> None:
        """The engine gives up."""


@dataclass(slots=True)
class Site:
    """One server's engine, counts and switches. `sleep_level` is written by the sleep routes, `shutting_down` by the
    server, `generations` through `enter` and `leave`, `stored` by `/v1/responses`."""

    options: EmulatorOptions
    engine: Engine[Choice]
    driver: Driver[Choice]
    faults: FaultBoard
    set_fault: Callable[[str], None]
    """Replace the standing faults, those of the listener included. Raises FaultError."""
    stats: Stats = field(default_factory=Stats)
    sleep_level: int = 0
    paused: bool = False
    shutting_down: bool = False
    generations: set[Work] = field(default_factory=set)
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever the last generation is over."""
    stored: OrderedDict[str, Work] = field(default_factory=OrderedDict)
    started_at: int = field(default_factory=lambda: int(time.time()))

    @property
    def limits(self) -> Limits:
        engine = self.options.engine
        longest = min(self.options.max_model_len, engine.kv_blocks * engine.block_size)
        return Limits(longest, self.options.output_tokens, engine.block_size)

    @property
    def shown_sleep_level(self) -> int:
        """What the server says of itself: a standing `sleep` fault counts as sleep."""
        return self.sleep_level or int(self.faults.asleep)

    def model(self, asked: object) -> str:
        """The served model a request means; none named is the first. Raises ApiError."""
        if asked is None:
            return self.options.models[0]
        if asked not in self.options.models:
            raise model_not_found(str(asked))
        return str(asked)

    def check_room(self) -> None:
        """Whether the engine takes another request. Raises ApiError."""
        if self.shutting_down:
            raise ApiError(500, SHUT_DOWN)
        bound = self.options.max_queued
        if bound is not None and self.engine.waiting >= bound and not self._has_place:
            self.stats.rejected["max_num_queued_reqs"] += 1
            raise ApiError(503, ENGINE_BUSY)

    @property
    def _has_place(self) -> bool:
        return self.engine.waiting == 0 and self.engine.running < self.options.engine.max_num_seqs

    def enter(self, generation: Work) -> None:
        self.generations.add(generation)
        self.settled.clear()

    def leave(self, generation: Work) -> None:
        self.generations.discard(generation)
        if not self.generations:
            self.settled.set()

    def apply_pause(self) -> None:
        """Bring the engine in line with the switches."""
        if self.sleep_level or self.paused:
            self.driver.pause()
        else:
            self.driver.resume()

    def state(self) -> dict[str, Any]:
        """For `/emulator/state`."""
        stats, engine = self.stats, self.engine
        decoding = engine.decoding
        return {
            "name": self.options.name,
            "received": stats.received,
            "in_flight": stats.in_flight,
            "served": stats.served,
            "aborted": stats.aborted,
            "faulted": stats.faulted,
            "phases": {
                Phase.WAITING.value: engine.waiting,
                Phase.PREFILL.value: engine.running - decoding,
                Phase.DECODING.value: decoding,
            },
            "kv_usage": engine.kv_usage,
            "sleeping": bool(self.shown_sleep_level),
            "fault": self.faults.spec,
            "received_ids": list(stats.received_ids),
            "served_ids": list(stats.served_ids),
            "aborted_ids": list(stats.aborted_ids),
        }
