"""What `llmproxy keys` does: finds the store, works on it, says what went wrong in a line."""

import asyncio
import json
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmproxy.auth.desk import DeskError, KeyDesk, Stored
from llmproxy.auth.mint import RANDOM_BYTES
from llmproxy.config import ConfigError, load
from llmproxy.config.quota import parse_count
from llmproxy.config.units import parse_duration
from llmproxy.core.limits import Quota
from llmproxy.policies import check_policy
from llmproxy.policy.limits.overrides import NAMES, overridden, override_text
from llmproxy.stores.key_record import KeyRecord
from llmproxy.stores.redis_keys import Conflict, RedisKeys
from llmproxy.stores.redis_trouble import in_words

T = TypeVar("T")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TENANT = re.compile(r"[^\x00-\x1f\x7f]{0,128}")
_MONEY = frozenset({"cost_per_day", "cost_per_month"})
_PRIORITIES = ("", "low", "normal", "high")
_LIFE_MAX_S = 100 * 365 * 86400.0
_WIDTH_WHEN_PIPED = 160


class Work:
    """`with Work(...)`: everything that may go wrong inside ends the command with status 1 and a line that says it."""

    def __init__(self, config: Path | None, store: str) -> None:
        self._config = config
        self._store = store
        self._tiers: tuple[str, ...] = ()

    def __enter__(self) -> "Work":
        try:
            if self._config is not None:
                settings = load(self._config, check_policy=check_policy)
                self._store = settings.auth.store
                self._tiers = tuple(settings.all_tiers)
            if not self._store:
                raise DeskError("no key store: say --config FILE with auth.store in it, or --store redis://host:6379/0")
        except (ConfigError, DeskError) as error:
            _end(str(error))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, Conflict):
            _end("somebody else changed this key just now; look at it again")
        # First, because a certificate that is not trusted is a ValueError too.
        if error is not None and (isinstance(error, OSError) or type(error).__module__.startswith("hiredis")):
            _end(f"the key store cannot be asked ({in_words(error)})")
        if isinstance(error, (DeskError, ValueError)):
            _end(str(error))

    def record(
        self,
        name: str,
        tier: str,
        tenant: str,
        models: Sequence[str],
        expires: str,
        priority: str,
        limits: Sequence[str],
    ) -> KeyRecord:
        """A new key's record, of what was typed."""
        if not _NAME.fullmatch(name):
            raise DeskError("a name is letters, digits, `.`, `_` and `-`, 64 at most")
        if self._tiers and tier not in self._tiers:
            raise DeskError(f"there is no tier {tier!r}; there are {', '.join(self._tiers)}")
        if not _TENANT.fullmatch(tenant):
            raise DeskError("a tenant is text of one line, 128 characters at most")
        if not all(model.strip() for model in models):
            raise DeskError("a model's name is empty; leave --model out for all of them")
        if priority not in _PRIORITIES:
            raise DeskError(f"{priority!r} is no priority: low, normal or high")
        now = time.time()
        return KeyRecord(
            name,
            tenant or name,
            tier,
            now,
            models=tuple(models) or None,
            limits=_limits(limits),
            priority=priority or None,
            expires_at=_end_of(expires, now),
        )

    def create(self, record: KeyRecord) -> str:
        return self._on_desk(lambda desk: desk.create(record, secrets.token_bytes(RANDOM_BYTES), time.time()))

    def revoke(self, name: str) -> int:
        return self._on_desk(lambda desk: desk.revoke(name, time.time()))

    def rotate(self, name: str, grace: str) -> str:
        grace_s = parse_duration(grace)
        return self._on_desk(lambda desk: desk.rotate(name, secrets.token_bytes(RANDOM_BYTES), time.time(), grace_s))

    def show(self, as_json: bool) -> None:
        """All keys, as a table or as JSON lines."""
        found = self._on_desk(lambda desk: desk.all())
        now = time.time()
        if as_json:
            for one in found:
                fields = {"id": one.id, "state": one.record.state(now)} | msgspec.to_builtins(one.record)
                typer.echo(json.dumps(fields))
            return
        console = Console(highlight=False)
        if not console.is_terminal:
            console = Console(highlight=False, width=_WIDTH_WHEN_PIPED)
        console.print(_table(found, now))

    def _on_desk(self, what: Callable[[KeyDesk], Awaitable[T]]) -> T:
        try:
            from llmproxy.stores.redis_client import RedisClient
        except ImportError as error:
            missing = f"Redis needs a package more ({error.name}): pip install 'llmproxy-gateway[redis]'"
            raise DeskError(missing) from None

        async def work() -> T:
            client = RedisClient(self._store)
            try:
                return await what(KeyDesk(RedisKeys(client.ask)))
            finally:
                await client.aclose()

        return asyncio.run(work())


def _end(message: str) -> None:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(1) from None


def _limits(written: Sequence[str]) -> Quota | None:
    """As in the configuration: counts may be `20k`, `cost_*` are money."""
    values: dict[str, float] = {}
    for item in written:
        name, _, value = item.partition("=")
        try:
            if name not in NAMES:
                raise ValueError
            values[name] = float(value) if name in _MONEY else parse_count(value)
        except ValueError:
            raise DeskError(f"{item!r} is no limit: write NAME=NUMBER with one of {', '.join(NAMES)}") from None
    return overridden(Quota(), override_text(values)) if values else None


def _end_of(text: str, now: float) -> float | None:
    """When a key ends: a time, or a duration from now."""
    if not text:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        life_s = parse_duration(text)
        if not 0 < life_s <= _LIFE_MAX_S:
            raise DeskError("a key may live longer than nothing, and shorter than a hundred years") from None
        return now + life_s
    ends_at = (when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp()
    if ends_at <= now:
        raise DeskError(f"{text} is past")
    return ends_at


def _table(found: Sequence[Stored], now: float) -> Table:
    table = Table("name", "id", "tenant", "tier", "state", "models", "made", "ends", title="Keys", title_justify="left")
    for one in found:
        record = one.record
        cells = (
            record.name,
            one.id,
            record.tenant,
            record.tier,
            record.state(now),
            ", ".join(record.models) if record.models is not None else "all",
            _when(record.created_at),
            _when(record.revoked_at or record.expires_at),
        )
        table.add_row(*map(Text, cells))
    return table


def _when(at: float | None) -> str:
    return "never" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
