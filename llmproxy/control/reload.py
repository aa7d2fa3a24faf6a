"""Reads the configuration again and has it applied whole, or keeps the old one and says why.

Three triggers: SIGHUP, a changed file (`FileWatch`: the configuration's, or one that it names), the admin API. One
reload at a time; each reads the file anew, so the last one to run has the last word. Loading (disk, YAML) happens in a
thread, applying in the event loop.
`Reloader.current` is written here only.
"""

import asyncio
import inspect
import logging
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from operator import attrgetter

from llmproxy.config.model import Config
from llmproxy.config.problem import ConfigError
from llmproxy.control.file_watch import FileWatch
from llmproxy.control.tasks import end_tasks

LOOK_EVERY_S = 1.0
RESTART_ONLY = (
    *("server.host", "server.port", "server.tls", "admin.host", "admin.port"),
    *("logging.file", "logging.prefix_hashes", "logging.prefix_salt"),
)
"""Settings that a running process keeps as it started with them; of TLS, whether there is any."""

_log = logging.getLogger("llmproxy.control.reload")


class Trigger(Enum):
    """Who asked. The value is the label in logs and metrics."""

    FILE = "file"
    SIGNAL = "signal"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class ReloadResult:
    """How a reload ended. `problems` is empty exactly when the new configuration is in force."""

    problems: tuple[str, ...] = ()
    changed: bool = False
    """Whether it says anything new."""
    needs_restart: tuple[str, ...] = ()
    """Settings that differ from those the process runs with and take effect at its next start."""

    @property
    def ok(self) -> bool:
        return not self.problems


class Reloader:
    """`load` raises ConfigError when the file is bad; `apply` puts a valid configuration in force."""

    def __init__(
        self,
        *,
        load: Callable[[], Config],
        apply: Callable[[Config], Awaitable[None] | None],
        current: Config,
        watch: FileWatch | None = None,
        restart_only: Sequence[str] = RESTART_ONLY,
        on_result: Callable[[ReloadResult], None] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.current = current
        self.counts: Counter[str] = Counter()
        """Reloads that ended `ok` and `failed`."""
        self._load = load
        self._apply = apply
        self._watch = watch
        self._on_result = on_result
        self._started_with = {path: _kept(current, path) for path in restart_only}
        self._sleep = sleep
        self._lock = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._listens = False

    async def reload(self, trigger: Trigger) -> ReloadResult:
        """Load, validate, apply. Never raises for a bad file or a failing `apply`: the result says it."""
        async with self._lock:
            result = await self._reload()
        self.counts["ok" if result.ok else "failed"] += 1
        if self._on_result is not None:
            self._on_result(result)
        if not result.ok:
            _log.error(
                "reload (%s) refused, the old configuration stays: %s", trigger.value, "; ".join(result.problems)
            )
        else:
            same = "the same configuration; certificates and authorities were read again"
            _log.info("reload (%s): %s", trigger.value, "new configuration in force" if result.changed else same)
        if result.needs_restart:
            _log.warning("these settings take effect at the next start only: %s", ", ".join(result.needs_restart))
        return result

    async def _reload(self) -> ReloadResult:
        try:
            config = await asyncio.to_thread(self._load)
            applied = self._apply(config)
            if inspect.isawaitable(applied):
                await applied
        except ConfigError as error:
            return ReloadResult(problems=tuple(str(error).splitlines()))
        except Exception as error:  # a defect, ours or a plugin's, must not cost the running configuration
            _log.exception("the new configuration could not be put in force")
            return ReloadResult(problems=(f"{type(error).__name__}: {error}",))
        changed = config != self.current
        self.current = config
        needs_restart = tuple(path for path, value in self._started_with.items() if _kept(config, path) != value)
        return ReloadResult(changed=changed, needs_restart=needs_restart)

    def start(self, *, sighup: bool = True) -> None:
        """Listen for SIGHUP (main thread only) and watch the file."""
        if sighup:
            # A burst of signals is one reload running and at most one waiting, which reads what the last one meant.
            hup = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hup.set)
            self._listens = True
            self._tasks.append(asyncio.create_task(self._serve_signals(hup), name="reload on SIGHUP"))
        if self._watch is not None:
            self._tasks.append(asyncio.create_task(self._watch_file(self._watch), name="reload on change"))

    async def stop(self) -> None:
        """Stop listening and watching."""
        if self._listens:
            asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)
        tasks, self._tasks, self._listens = self._tasks, [], False
        await end_tasks(*tasks)

    async def _serve_signals(self, hup: asyncio.Event) -> None:
        while True:
            await hup.wait()
            hup.clear()
            await self._reload_whatever(Trigger.SIGNAL)

    async def _watch_file(self, watch: FileWatch) -> None:
        while True:
            await self._sleep(LOOK_EVERY_S)
            if await asyncio.to_thread(watch.look):
                await self._reload_whatever(Trigger.FILE)

    async def _reload_whatever(self, trigger: Trigger) -> None:
        try:
            await self.reload(trigger)
        except Exception:  # the listener must live to hear the next one
            _log.exception("reload (%s) failed", trigger.value)


def _kept(config: Config, path: str) -> object:
    value: object = attrgetter(path)(config)
    # A listener that has a certificate takes another one while it runs.
    return value is None if path == "server.tls" else value
