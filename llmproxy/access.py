"""Who asks, put together: the gate that requests pass, and the loops that keep its keys true."""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from llmproxy.auth.authenticator import Authenticator
from llmproxy.auth.gate import Gate
from llmproxy.auth.jwks import parse_jwks
from llmproxy.auth.live_keys import LiveKeys
from llmproxy.auth.static_keys import StaticKeys
from llmproxy.auth.tokens import TokenRules, Tokens
from llmproxy.config.auth import JwtConfig, KeyConfig
from llmproxy.config.model import Config
from llmproxy.control.jwks import HttpJwks, JwksRefresher
from llmproxy.control.key_sync import KeySync
from llmproxy.core.identity import Identity
from llmproxy.stores.redis_keys import RedisKeys

log = logging.getLogger("llmproxy.access")

FIRST_WAIT_S = 2.0
"""How long the keys of a store, or an issuer's, are waited for before requests are let at them. Later they come in."""


@dataclass(slots=True)
class _Store:
    url: str
    keys: LiveKeys
    sync: KeySync


@dataclass(slots=True)
class _Issuer:
    settings: JwtConfig
    tiers: frozenset[str]
    tokens: Tokens
    refresher: JwksRefresher | None


class Access:
    """`configure`, then `commit` when all else of a configuration could be put in force too. What a new configuration
    does not change goes on as it is. `wall` gives Unix seconds."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self.results: Counter[str] = Counter()
        self._store: _Store | None = None
        self._issuer: _Issuer | None = None
        self._next: tuple[_Store | None, _Issuer | None] = (None, None)
        self._said = ""

    async def configure(self, config: Config) -> Gate | None:
        """The gate for `config`; None when nobody is asked for a key. Raises ValueError for keys of no use."""
        given_up, self._next = self._next, (None, None)
        await self._end(given_up)
        if not config.checks_keys:
            return None
        issuer = self._issuer_of(config)
        store = self._store_of(config)
        self._next = (store, issuer)
        await self._first_keys(store, issuer)
        authenticators: list[Authenticator] = [StaticKeys({key.digest: identity_of(key) for key in config.keys})]
        if issuer is not None:
            authenticators.append(issuer.tokens)
        if store is not None:
            authenticators.append(store.keys)
        return Gate(authenticators, wall=self._wall, results=self.results, lets_anonymous=bool(config.auth.anonymous))

    async def commit(self, config: Config) -> None:
        """What was configured last is in force."""
        before = self._store, self._issuer
        (self._store, self._issuer), self._next = self._next, (None, None)
        if self._store is not None:
            self._store.keys.configure(config.auth.stale_for, frozenset(config.all_tiers))
        await self._end(before)
        said = _in_words(config)
        if said != self._said:
            self._said = said
            log.info("%s", said)

    async def stop(self) -> None:
        """End all loops."""
        parts = (self._store, self._issuer)
        pending, self._next, self._store, self._issuer = self._next, (None, None), None, None
        await self._end(pending)
        await self._end(parts)

    def store_age_s(self) -> dict[tuple[str, ...], float]:
        """For the metric: how old the copy of the key store is."""
        confirmed_at = None if self._store is None else self._store.keys.confirmed_at
        return {} if confirmed_at is None else {(): max(self._wall() - confirmed_at, 0.0)}

    def _store_of(self, config: Config) -> _Store | None:
        url = config.auth.store
        if not url:
            return None
        if self._store is not None and self._store.url == url:
            return self._store
        # Not above: its package is an extra.
        from llmproxy.stores.redis_client import RedisClient

        client = RedisClient(url)
        keys = LiveKeys(config.auth.stale_for, frozenset(config.all_tiers))
        sync = KeySync(RedisKeys(client.ask), keys, wall=self._wall, close=client.aclose)
        sync.start()
        return _Store(url, keys, sync)

    def _issuer_of(self, config: Config) -> _Issuer | None:
        settings = config.auth.jwt
        if settings is None:
            return None
        tiers = frozenset(config.all_tiers)
        if self._issuer is not None and (self._issuer.settings, self._issuer.tiers) == (settings, tiers):
            return self._issuer
        refresher: JwksRefresher | None = None
        tokens = Tokens(_rules(settings, tiers), on_unknown_key=lambda: None if refresher is None else refresher.want())

        def take(text: bytes) -> None:
            tokens.set_keys(parse_jwks(text, settings.algorithms))

        if settings.is_file:
            take(settings.jwks_text)
        else:
            fetch = HttpJwks(settings.issuer, settings.jwks)
            refresher = JwksRefresher(fetch, take=take, lost=tokens.lost, refresh_s=settings.refresh)
            refresher.start()
        return _Issuer(settings, tiers, tokens, refresher)

    async def _first_keys(self, store: _Store | None, issuer: _Issuer | None) -> None:
        waits = []
        if store is not None and store is not self._store:
            waits.append(store.sync.tried.wait())
        if issuer is not None and issuer is not self._issuer and issuer.refresher is not None:
            waits.append(issuer.refresher.tried.wait())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_WAIT_S):
                await asyncio.gather(*waits)

    async def _end(self, parts: tuple[_Store | None, _Issuer | None]) -> None:
        """End those of `parts` that are not in use, now or next."""
        store, issuer = parts
        if store is not None and store is not self._store and store is not self._next[0]:
            await store.sync.stop()
        if issuer is None or issuer is self._issuer or issuer is self._next[1]:
            return
        if issuer.refresher is not None:
            await issuer.refresher.stop()


def identity_of(key: KeyConfig) -> Identity:
    """The holder of a key of the configuration."""
    return Identity(
        key.tenant or key.name,
        key.tier,
        key.name,
        models=key.models,
        limits=None if key.limits is None else key.limits.quota(),
        priority=key.priority,
        expires_at=key.expires_at,
    )


def _rules(settings: JwtConfig, tiers: frozenset[str]) -> TokenRules:
    return TokenRules(
        issuer=settings.issuer,
        audiences=frozenset(settings.audience),
        algorithms=settings.algorithms,
        leeway_s=settings.leeway,
        tenant_claim=settings.claims.tenant,
        tier_claim=settings.claims.tier,
        models_claim=settings.claims.models,
        default_tier=settings.tier,
        tiers=tiers,
    )


def _in_words(config: Config) -> str:
    """What is said at start, and when it changes."""
    if not config.checks_keys:
        return "auth: none; whoever reaches the public port is served, and keys are passed on to the backends unchecked"
    kinds = []
    if config.keys:
        kinds.append(f"{len(config.keys)} in the configuration")
    if config.auth.store:
        kinds.append("those in the key store")
    if config.auth.jwt is not None:
        kinds.append("tokens of the issuer")
    but = f"; without one: tier {config.auth.anonymous}" if config.auth.anonymous else ""
    return f"auth: a key is required ({', '.join(kinds)}){but}"
