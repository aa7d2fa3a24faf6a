"""Making keys, taking them back, replacing them: what `llmproxy keys` does. `now` is Unix seconds, `random` a new key's
secret bytes."""

from dataclasses import dataclass

import msgspec

from llmproxy.auth.mint import digest_of, key_of
from llmproxy.stores.key_record import KeyRecord, decode
from llmproxy.stores.redis_keys import RedisKeys


class DeskError(Exception):
    """It cannot be done; the message says why."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A key on record. `id` is the beginning of its SHA-256, to tell two of one name apart."""

    id: str
    record: KeyRecord


class KeyDesk:
    """Works on a key store."""

    def __init__(self, store: RedisKeys) -> None:
        self._store = store

    async def create(self, record: KeyRecord, random: bytes, now: float) -> str:
        """A new key, which nobody will be shown again. A name is free once its key was revoked or has expired."""
        found = await self._store.find(record.name)
        if found is not None and found[1].state(now) == "active":
            raise DeskError(f"there is a key called {record.name!r} already: rotate or revoke it, or take another name")
        key = key_of(random)
        digest = digest_of(key)
        expected = None if found is None else found[0]
        await self._store.put(record.name, expected=expected, current=digest, changes={digest: record})
        return key

    async def revoke(self, name: str, now: float) -> int:
        """End the key, and those it replaced that are still good; how many that were."""
        found = await self._store.find(name)
        if found is None:
            raise DeskError(f"there is no key called {name!r}")
        copy = await self._store.copy()
        changes = {
            digest: msgspec.structs.replace(record, revoked_at=now)
            for digest, raw in copy.records.items()
            if (record := decode(raw)).name == name and record.state(now) in ("active", "replaced")
        }
        if not changes:
            raise DeskError(f"the key {name!r} is {found[1].state(now)} already")
        await self._store.put(name, expected=found[0], current=found[0], changes=changes)
        return len(changes)

    async def rotate(self, name: str, random: bytes, now: float, grace_s: float) -> str:
        """A new key with the old one's name and rights; the old one is good for `grace_s` more."""
        found = await self._store.find(name)
        if found is None:
            raise DeskError(f"there is no key called {name!r}")
        digest, record = found
        if record.revoked_at is not None:
            raise DeskError(f"the key {name!r} was revoked: create another")
        ends_at = now + grace_s if record.expires_at is None else min(record.expires_at, now + grace_s)
        old = msgspec.structs.replace(record, replaced_at=now, expires_at=ends_at)
        key = key_of(random)
        # A term that was given once is not handed on: it may be over, and then the new key would be born dead.
        expires_at = record.expires_at if record.expires_at is not None and record.expires_at > now else None
        new = msgspec.structs.replace(record, created_at=now, expires_at=expires_at)
        fresh = digest_of(key)
        await self._store.put(name, expected=digest, current=fresh, changes={digest: old, fresh: new})
        return key

    async def all(self) -> list[Stored]:
        """Every key on record, by name, the newest first."""
        copy = await self._store.copy()
        found = [Stored(digest.hex()[:8], decode(raw)) for digest, raw in copy.records.items()]
        return sorted(found, key=lambda one: (one.record.name, -one.record.created_at))
