"""Keys that are made, revoked and replaced while the proxy runs: a copy of what the key store says.

A loop in `control/` keeps the copy true, and says so every second; requests look at the copy only. So a key costs no
round trip, and a store that is gone costs nothing at first: known keys stay good for `stale_for_s`. About others nobody
can say anything then, and they are answered 503.
"""

from collections.abc import Mapping

from llmproxy.auth import refusals
from llmproxy.auth.credential import Credential
from llmproxy.auth.verified import Verified
from llmproxy.core.errors import Forbidden
from llmproxy.core.identity import Identity
from llmproxy.stores.key_record import decode

FRESH_S = 4.0
"""The copy is confirmed every second; one that was not for so long may lack a key."""
_FOR_EVER = float("inf")


class LiveKeys:
    """`replace`, `change`, `confirm` and `lost` are for the loop; times are Unix seconds. Records stay JSON until their
    key is used, because most are not."""

    def __init__(self, stale_for_s: float, tiers: frozenset[str] = frozenset()) -> None:
        """`tiers`: those there are (empty: not known). A key of another is refused: it would have no limits."""
        self.stale_for_s = stale_for_s
        self._tiers = tiers
        self._records: dict[bytes, bytes] = {}
        self._verified = Verified()
        self._confirmed_at: float | None = None
        self._is_fresh = False

    def __len__(self) -> int:
        return len(self._records)

    @property
    def confirmed_at(self) -> float | None:
        """When the copy was last known to be the store's; None: never yet."""
        return self._confirmed_at

    def authenticate(self, credential: Credential, now: float) -> Identity | None:
        confirmed_at = self._confirmed_at
        if confirmed_at is None or now - confirmed_at > self.stale_for_s:
            raise refusals.unavailable("The key store")
        identity = self._verified.find(credential.digest, now)
        if identity is not None:
            return identity
        raw = self._records.get(credential.digest)
        if raw is None:
            if not self._is_fresh or now - confirmed_at > FRESH_S:
                raise refusals.unavailable("The key store")
            return None
        return self._read(credential.digest, raw, now)

    def _read(self, digest: bytes, raw: bytes, now: float) -> Identity | None:
        try:
            record = decode(raw)
        except ValueError:
            return None
        if record.revoked_at is not None:
            raise refusals.revoked()
        if record.expires_at is not None and now >= record.expires_at:
            raise refusals.expired()
        if self._tiers and record.tier not in self._tiers:
            raise Forbidden("this key is of a tier that this proxy does not have", code="unknown_tier")
        identity = record.identity()
        self._verified.good(digest, identity, _FOR_EVER if record.expires_at is None else record.expires_at)
        return identity

    def configure(self, stale_for_s: float, tiers: frozenset[str]) -> None:
        """After a reload."""
        self.stale_for_s = stale_for_s
        if tiers != self._tiers:
            self._tiers = tiers
            self._verified.clear()

    # -- from the loop ---------------------------------------------------------------------------------------------

    def replace(self, records: Mapping[bytes, bytes], now: float) -> None:
        """These are all the keys there are."""
        self._records = dict(records)
        self._verified.clear()
        self.confirm(now)

    def change(self, digest: bytes, raw: bytes | None) -> None:
        """One key's record is now this, or gone."""
        if raw is None:
            self._records.pop(digest, None)
        else:
            self._records[digest] = raw
        self._verified.forget(digest)

    def confirm(self, now: float) -> None:
        """The copy is the store's."""
        self._confirmed_at = now
        self._is_fresh = True

    def lost(self) -> None:
        """The store cannot be asked."""
        self._is_fresh = False
