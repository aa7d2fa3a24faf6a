"""Backends that register themselves (`POST /admin/pools/{pool}/backends`), each for as long as it says so again.

An instance that has just booted says its URL, and again before its `ttl` is over; when it falls silent it leaves the
pool, and what runs there finishes. The prober decides whether it gets requests, as for every other backend.

Where proxies share a table, what one is told all know: then the table is what counts, and `heard` takes it over. Times
in it are those of the wall clock.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from llmproxy.config.backend import BackendConfig
from llmproxy.control.registrar import Registrar
from llmproxy.control.scaling.tables import Table
from llmproxy.core.backend import BackendSpec
from llmproxy.core.clock import Clock

SOURCE: Final = "registered"
TTL_MIN_S: Final = 1.0
TTL_MAX_S: Final = 24 * 3600.0
COUNT_MAX: Final = 1000
_NEVER: Final = float("inf")
_FORGOTTEN_AFTER_S: Final = 60.0
_log = logging.getLogger("llmproxy.control.registrations")


@dataclass(frozen=True, slots=True)
class _Entry:
    spec: BackendSpec
    until: float


class Registrations:
    """`expired` whenever `deadline` has passed (a `Timed` of the wire). `is_pool(name)` says which pools there are;
    `taken(id)` whether a backend that did not register itself has the id already."""

    def __init__(
        self,
        registrar: Registrar,
        clock: Clock,
        *,
        is_pool: Callable[[str], bool],
        taken: Callable[[str], bool],
        on_change: Callable[[str, str, Mapping[str, Any]], None] = lambda who, what, facts: None,
        table: Callable[[str], Table | None] = lambda pool: None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.deadline = _NEVER
        self._registrar = registrar
        self._clock = clock
        self._is_pool = is_pool
        self._taken = taken
        self._on_change = on_change
        self._table = table
        self._wall = wall
        self._pools: dict[str, dict[str, _Entry]] = {}

    def register(self, pool: str, settings: Mapping[str, Any], ttl_s: float, who: str) -> str:
        """Its id. KeyError when there is no such pool, ValueError for a description that is none."""
        if not self._is_pool(pool):
            raise KeyError(pool)
        if not TTL_MIN_S <= ttl_s <= TTL_MAX_S:
            raise ValueError(f"ttl must be from {TTL_MIN_S:g} s to {TTL_MAX_S / 3600:g} h")
        try:
            spec = BackendConfig.model_validate(dict(settings)).spec(pool)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        known = self._pools.setdefault(pool, {})
        if spec.id not in known and self._taken(spec.id):
            raise ValueError(f"the id {spec.id!r} is taken")
        if spec.id not in known and len(known) >= COUNT_MAX:
            raise ValueError(f"{COUNT_MAX} backends are registered already")
        if spec.id not in known or known[spec.id].spec != spec:
            self._on_change(who, "register", {"pool": pool, "backend": spec.id, "url": spec.url})
        known[spec.id] = _Entry(spec, self._clock() + ttl_s)
        table = self._table(pool)
        if table is not None:
            table.put(spec.id, json.dumps([dict(settings) | {"id": spec.id}, self._wall() + ttl_s]))
        self._publish(pool)
        return spec.id

    def unregister(self, pool: str, id: str, who: str) -> bool:
        """False when nobody registered it."""
        if self._pools.get(pool, {}).pop(id, None) is None:
            return False
        self._on_change(who, "unregister", {"pool": pool, "backend": id})
        table = self._table(pool)
        if table is not None:
            table.put(id, None)
        self._publish(pool)
        return True

    def heard(self, pool: str) -> None:
        """What all proxies together know of a pool is new."""
        table = self._table(pool)
        if table is None:
            return
        found = {id: self._entry(pool, text) for id, text in table.values.items()}
        now = self._clock()
        for id, entry in found.items():
            # Not sooner: it may be saying so again to another proxy just now.
            if entry is None or entry.until + _FORGOTTEN_AFTER_S <= now:
                table.put(id, None)
        before = self._pools.get(pool, {})
        self._pools[pool] = {id: one for id, one in found.items() if one is not None and one.until > now}
        if {id: one.spec for id, one in before.items()} != {id: one.spec for id, one in self._pools[pool].items()}:
            self._publish(pool)
        else:
            self._set_deadline()

    def _entry(self, pool: str, text: str) -> _Entry | None:
        """None for what is no backend."""
        try:
            settings, until_unix_s = json.loads(text)
            spec = BackendConfig.model_validate(settings).spec(pool)
            return _Entry(spec, self._clock() + float(until_unix_s) - self._wall())
        except (ValueError, TypeError):
            return None

    def expired(self, now: float) -> None:
        """Who has fallen silent leaves."""
        for pool, known in self._pools.items():
            silent = [id for id, entry in known.items() if entry.until <= now]
            for id in silent:
                del known[id]
                _log.warning("pool %s: backend %s has not said again that it is there: it leaves", pool, id)
            if silent:
                self._publish(pool)
        self._set_deadline()

    def _publish(self, pool: str) -> None:
        self._registrar.announce(pool, SOURCE, [entry.spec for entry in self._pools.get(pool, {}).values()])
        self._set_deadline()

    def _set_deadline(self) -> None:
        self.deadline = min((entry.until for known in self._pools.values() for entry in known.values()), default=_NEVER)
