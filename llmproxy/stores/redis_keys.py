"""Keys in Redis: one hash of records by digest, one of digests by name, and a stream of what changed.

All four share a hash tag, so on Redis Cluster they are in one slot. Every write is one script, which compares before
it sets: of two people who rotate the same key at the same time, one is told. The stream is how proxies hear of a change
in milliseconds; unlike messages of publish/subscribe, its entries are still there after a connection broke. `epoch` is
made with the first key: where it is gone or another, the data are not those that were there before.
"""

import contextlib
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from llmproxy.stores.key_record import KeyRecord, decode, encode

RECORDS = "llmproxy:{keys}:records"
NAMES = "llmproxy:{keys}:names"
CHANGES = "llmproxy:{keys}:changes"
EPOCH = "llmproxy:{keys}:epoch"
V = TypeVar("V")
_START = "0-0"
_SCAN = 1000
_CHANGES_KEPT = 10_000
_PUT = f"""
local current = redis.call('HGET', KEYS[2], ARGV[1]) or ''
if current ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[4], ARGV[4], 'NX')
for i = 5, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', {_CHANGES_KEPT}, '*', 'digest', ARGV[i])
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
return 1
"""


class Conflict(Exception):
    """Somebody else changed this name's key just now."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened since `after`: digest -> record as it is now, None for one that is gone."""

    last: str
    epoch: str
    records: Mapping[bytes, bytes | None]


@dataclass(frozen=True, slots=True)
class Copy:
    """Everything, and from where to listen for changes to it."""

    last: str
    epoch: str
    records: Mapping[bytes, bytes]


class RedisKeys:
    """`ask` sends a command and gives Redis's answer, bytes where that is text. Raises what that raises."""

    def __init__(self, ask: Callable[..., Awaitable[Any]]) -> None:
        self._ask = ask

    async def find(self, name: str) -> tuple[bytes, KeyRecord] | None:
        """The digest and the record that `name` stands for now."""
        digest = await self._ask("HGET", NAMES, name)
        raw = None if digest is None else await self._ask("HGET", RECORDS, digest)
        return None if raw is None else (bytes.fromhex(digest.decode()), decode(raw))

    async def put(
        self, name: str, *, expected: bytes | None, current: bytes, changes: Mapping[bytes, KeyRecord]
    ) -> None:
        """Store `changes` and let `name` stand for `current`, if it stands for `expected`. Raises `Conflict`."""
        records = [item for digest, record in changes.items() for item in (digest.hex(), encode(record))]
        before = "" if expected is None else expected.hex()
        arguments = (name, before, current.hex(), secrets.token_hex(8), *records)
        if not await self._ask("EVAL", _PUT, 4, RECORDS, NAMES, CHANGES, EPOCH, *arguments):
            raise Conflict(name)

    async def copy(self) -> Copy:
        """All there is. Changes while it is read come again with `changes`."""
        last = await self._ask("XREVRANGE", CHANGES, "+", "-", "COUNT", 1)
        epoch = await self._ask("GET", EPOCH)
        records: dict[bytes, bytes] = {}
        cursor = b"0"
        while True:
            cursor, found = await self._ask("HSCAN", RECORDS, cursor, "COUNT", _SCAN)
            records.update(_by_digest(_pairs(found)))
            if cursor == b"0":
                return Copy(last[0][0].decode() if last else _START, _text(epoch), records)

    async def changes(self, after: str, wait_s: float) -> Changes:
        """What changed since, waiting up to `wait_s` for something to."""
        wait_ms = max(int(wait_s * 1000), 1)
        streams = await self._ask("XREAD", "BLOCK", wait_ms, "STREAMS", CHANGES, after)
        last = after
        digests: dict[bytes, None] = {}
        for _, entries in streams or ():
            for id, fields in entries:
                last = id.decode()
                digests[_pairs(fields)[b"digest"]] = None
        epoch = _text(await self._ask("GET", EPOCH))
        values = await self._ask("HMGET", RECORDS, *digests) if digests else []
        return Changes(last, epoch, dict(_by_digest(dict(zip(digests, values, strict=True)))))


def _by_digest(found: Mapping[bytes, V]) -> Iterator[tuple[bytes, V]]:
    for digest, raw in found.items():
        # What somebody wrote there by hand is nobody's key.
        with contextlib.suppress(ValueError):
            yield bytes.fromhex(digest.decode()), raw


def _pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """Names and values, as Redis lists them in turn."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _text(value: bytes | None) -> str:
    return "" if value is None else value.decode()
