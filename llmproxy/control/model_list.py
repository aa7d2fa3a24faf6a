"""Which models a backend serves, as it says itself on `/v1/models`."""

import asyncio
import json
from typing import Any

from llmproxy.control.probe import ProbeClient
from llmproxy.core.backend import BackendSpec

_ANSWER_MAX_BYTES = 1 << 20


class NoModelList(Exception):
    """It answered, but not with a list of models. The message says what it did answer."""


async def models_of(client: ProbeClient, spec: BackendSpec, key: str, timeout_s: float) -> tuple[str, ...]:
    """The models' names, in the backend's order. Raises `NoModelList`, or what `ProbeClient.get` raises."""
    answer = _Answer()
    async with asyncio.timeout(timeout_s):
        status = await client.get(spec, key, "/v1/models", answer)
    if status != 200:
        raise NoModelList(f"status {status}")
    try:
        found: Any = json.loads(answer.body)
    except (ValueError, RecursionError):
        raise NoModelList("no JSON") from None
    cards = found.get("data") if isinstance(found, dict) else None
    if not isinstance(cards, list):
        raise NoModelList("no list of models")
    return tuple(card["id"] for card in cards if isinstance(card, dict) and isinstance(card.get("id"), str))


class _Answer:
    """Collects a body, up to `_ANSWER_MAX_BYTES` (what is cut off there is no JSON any more)."""

    def __init__(self) -> None:
        self.body = bytearray()

    def feed(self, data: bytes) -> bool:
        """True when it has had enough."""
        self.body += data
        return len(self.body) > _ANSWER_MAX_BYTES
