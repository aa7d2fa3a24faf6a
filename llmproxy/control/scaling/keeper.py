"""What one pool's loop must not forget over a restart: demand by the minute for its forecasts, what a replica was seen
to sustain, money spent, pauses.

Read before the first decision and again by each new set of policies; written every minute, at the end, and at once
when somebody pauses. A store that fails costs a restart its memory, never the running loop anything.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final

from llmproxy.policy.scaling.base import Rates
from llmproxy.policy.scaling.decision import Decider
from llmproxy.policy.scaling.forecast import Forecast, Minute
from llmproxy.policy.scaling.guardrails import Guardrails
from llmproxy.policy.scaling.money import Spent
from llmproxy.stores.history import HistoryError, HistoryStore, Point

KEEP_EVERY_S: Final = 60.0
_LONGEST_MINUTES: Final = 3 * 24 * 60
"""Kept where no forecast says otherwise: one may be configured tomorrow."""
_SPENT: Final = "spent"
_PAUSED: Final = "paused"
_LEARNED: Final = "learned"

_log = logging.getLogger("llmproxy.control.scaling")


class Keeper:
    """One pool's, over a store whose calls block. `paused()` gives the pauses that hold there (`{pool or *: who and
    why}`), `on_paused` hears of those an earlier process left. `is_shared`: other proxies write there too. Such a store
    is waited for, as what it holds (money spent) binds all of them; without one of its own a proxy begins anew."""

    def __init__(
        self,
        pool: str,
        store: HistoryStore,
        wall: Callable[[], float],
        *,
        paused: Callable[[], Mapping[str, str]] = dict,
        on_paused: Callable[[Mapping[str, str]], None] = lambda found: None,
        is_shared: bool = False,
    ) -> None:
        self.is_shared = is_shared
        self.has_begun = False
        self._pool = pool
        self._store = store
        self._wall = wall
        self._paused = paused
        self._on_paused = on_paused
        self._prepared: Decider | None = None
        self._points: dict[int, Point] = {}
        self._spent: Spent | None = None
        self.learned = Rates()
        """What an earlier process had learned of a replica's capacity; known from `begin` on."""
        self._trouble = ""

    async def begin(self) -> None:
        """Before anything is decided, until `has_begun`."""
        try:
            spent, paused, learned = [
                await asyncio.to_thread(self._store.fact, self._pool, name) for name in (_SPENT, _PAUSED, _LEARNED)
            ]
        except HistoryError as error:
            self._troubled(str(error))
            self.has_begun = not self.is_shared
            return
        self.has_begun, self._trouble = True, ""
        self._spent, self.learned = _spent(spent), _rates(learned)
        self._on_paused({name: why for name, why in _object(paused).items() if isinstance(why, str)})

    async def prepare(self, decider: Decider, cold_start_s: float | None) -> None:
        """Before each decision: give policies that do not know it yet what was kept. Learning takes long, so it is not
        done in the loop that serves."""
        if decider is not self._prepared:
            await self._restore(decider)
            self._prepared = decider
        for forecast in _forecasts(decider):
            if not forecast.is_prepared(cold_start_s):
                await asyncio.to_thread(forecast.prepare, cold_start_s)

    def is_prepared(self, decider: Decider, cold_start_s: float | None) -> bool:
        return decider is self._prepared and all(one.is_prepared(cold_start_s) for one in _forecasts(decider))

    async def history(self) -> list[Point]:
        """Demand by the minute, as far as it is kept. None where it cannot be read."""
        try:
            kept = await asyncio.to_thread(self._store.read, self._pool, 0)
        except HistoryError as error:
            self._troubled(str(error))
            kept = []
        return sorted({**dict(kept), **dict(self._points.values())}.items())

    def take(self, decider: Decider) -> None:
        """Whatever is new there is to be kept; also before its place is taken by another."""
        for forecast in _forecasts(decider):
            for minute in forecast.new_minutes():
                one = minute.demand
                figures = one.requests_per_s, one.prefill_tokens_per_s, one.decode_tokens_per_s
                self._points[minute.number] = minute.number, figures
        self._spent = decider.guardrails.spent or self._spent

    async def keep(self, decider: Decider, learned: Rates | None = None) -> None:
        """Write it down, and what was learned of a replica's capacity."""
        self.take(decider)
        points, self._points = self._points, {}
        minutes = max([_LONGEST_MINUTES, *(one.history_minutes for one in _forecasts(decider))])
        oldest = int(self._wall() // 60) - minutes
        if points and not await self._write(lambda: self._store.append(self._pool, list(points.values()), oldest)):
            self._points = points | self._points
        spent = None if self._spent is None else json.dumps(asdict(self._spent))
        if spent is not None:
            await self._write(lambda: self._store.remember(self._pool, _SPENT, spent))
        if learned is not None and learned not in (Rates(), self.learned):
            text = json.dumps(asdict(learned))
            if await self._write(lambda: self._store.remember(self._pool, _LEARNED, text)):
                self.learned = learned

    def close(self) -> None:
        """At the end."""
        self._store.close()

    async def keep_pauses(self) -> None:
        """Who paused, or that nobody does any more."""
        text = json.dumps(dict(self._paused())) if self._paused() else None
        await self._write(lambda: self._store.remember(self._pool, _PAUSED, text))

    # -- inside ----------------------------------------------------------------------------------------------------

    async def _restore(self, decider: Decider) -> None:
        if self._spent is not None:
            decider.guardrails.resume(self._spent)
        forecasts = [one for one in _forecasts(decider) if not one.is_used]
        if not forecasts:
            return
        since = int(self._wall() // 60) - max(one.history_minutes for one in forecasts)
        try:
            points = await asyncio.to_thread(self._store.read, self._pool, since)
        except HistoryError as error:
            self._troubled(str(error))
            points = []
        pending = [point for number, point in self._points.items() if number >= since]
        minutes = [
            Minute(number, Rates(*figures)) for number, figures in sorted({**dict(points), **dict(pending)}.items())
        ]
        for forecast in forecasts:
            forecast.restore(minutes)

    async def _write(self, write: Callable[[], None]) -> bool:
        try:
            await asyncio.to_thread(write)
        except HistoryError as error:
            self._troubled(str(error))
            return False
        self._trouble = ""
        return True

    def _troubled(self, what: str) -> None:
        """Say it once."""
        if what != self._trouble:
            self._trouble = what
            _log.error("pool %s: the history of scaling cannot be kept: %s", self._pool, what)


def skills(decider: Decider) -> dict[str, float]:
    """By what share the forecast beats none, by dimension, where it has been judged."""
    found: dict[str, float] = {}
    for forecast in _forecasts(decider):
        found |= {name: skill for name, skill in forecast.skill().items() if skill is not None}
    return found


def carry_over(old: Guardrails, new: Guardrails) -> None:
    """Money spent and changes made under the old limits count under the new ones."""
    new.follow(old)
    if old.spent is not None:
        new.resume(old.spent)


def _forecasts(decider: Decider) -> list[Forecast]:
    return [policy for policy in decider.policies if isinstance(policy, Forecast)]


def _object(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _rates(text: str | None) -> Rates:
    try:
        return Rates(**{name: float(value) for name, value in _object(text).items() if value is not None})
    except (TypeError, ValueError):
        return Rates()


def _spent(text: str | None) -> Spent | None:
    try:
        return Spent(**{name: float(value) for name, value in _object(text).items()}) if text else None
    except (TypeError, ValueError):
        return None
