"""Which stage each replica is in, told by the proxy that leads and followed by all others.

The leader's word is one text in Redis, written with its fencing token: one that has been succeeded is not heard. A
proxy that takes the lead goes on from the last word.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from llmproxy.control.scaling.fleet import COMING, Fleet, Stage
from llmproxy.control.scaling.tables import Evaluate

_READ: Final = "return redis.call('GET', KEYS[1])"
_TELL: Final = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""
_STAGES: Final = {stage.value: stage for stage in Stage}

_log = logging.getLogger("llmproxy.control.scaling")


@dataclass(frozen=True, slots=True)
class Order:
    stage: Stage
    asleep: bool = False


class Orders:
    """One pool's. `fence_key` is where the newest leader's token stands."""

    def __init__(self, evaluate: Evaluate, key: str, fence_key: str) -> None:
        self._evaluate = evaluate
        self._keys = [key, fence_key]
        self._last: Mapping[str, Order] = {}
        self._is_current = False
        self._told: tuple[int, str] | None = None

    @property
    def in_force(self) -> Mapping[str, Order]:
        """The leader's last word. While it cannot be asked for, replicas that were coming then are judged by each proxy
        for itself."""
        if self._is_current:
            return self._last
        return {id: order for id, order in self._last.items() if order.stage not in COMING}

    async def sync(self, token: int | None, fleet: Fleet) -> None:
        """Tell, with the leader's token, or ask."""
        try:
            if token is None or self._told is None:
                self._last = _orders(await self._evaluate(_READ, self._keys[:1], []))
                self._told = (0, "") if token is not None else None
            if token is not None:
                await self._tell(token, _text(fleet))
            self._is_current = True
        except Exception as error:
            self._is_current = False
            _log.debug("%s: %s", self._keys[0], error)

    async def _tell(self, token: int, text: str) -> None:
        if self._told != (token, text) and await self._evaluate(_TELL, self._keys, [str(token), text]):
            self._told = token, text


def _text(fleet: Fleet) -> str:
    return json.dumps({one.id: [one.stage.value, one.asleep] for one in fleet.replicas.values()})


def _orders(text: Any) -> dict[str, Order]:
    """What is none is passed over."""
    try:
        rows = json.loads(text or "{}")
        return {id: Order(_STAGES[stage], bool(asleep)) for id, (stage, asleep) in rows.items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}
