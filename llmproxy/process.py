"""One process running one proxy: file descriptors, signals, the garbage collector, what is said at start and end."""

import asyncio
import contextlib
import gc
import logging
import resource
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import uvloop

from llmproxy.app import App
from llmproxy.config.loader import load
from llmproxy.config.model import Config
from llmproxy.config.problem import ConfigError, Problem
from llmproxy.control.file_watch import FileWatch
from llmproxy.policies import check_policy
from llmproxy.telemetry.log import configure

log = logging.getLogger("llmproxy")

FILES_BESIDE_CONNECTIONS = 64


def serve_file(path: Path) -> int:
    """Run the proxy from a configuration file until a signal ends it. Returns the exit status."""
    watch = FileWatch()

    def read(on_warning: Callable[[Problem], None]) -> Config:
        with watch.reading() as about_to_read:
            return load(path, check_policy=check_policy, on_warning=on_warning, on_file=about_to_read)

    warnings: list[Problem] = []
    try:
        config = read(warnings.append)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    configure(config.logging.level)
    for warning in warnings:
        log.warning("%s", warning)

    app = App(config, load=lambda: read(lambda problem: log.warning("%s", problem)), watch=watch)
    return run(serve(app, _announce))


def run(main: Coroutine[Any, Any, int]) -> int:
    """Run `main` on uvloop. Ctrl-C before it listens for signals ends quietly."""
    with contextlib.suppress(KeyboardInterrupt):
        return uvloop.run(main)
    return 130


async def serve(app: App, announce: Callable[[App], None]) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    _raise_file_limit(app.config)
    try:
        await app.start()
    except (OSError, ValueError) as error:
        print(f"cannot start: {error}", file=sys.stderr)
        return 1
    _tune_gc()
    announce(app)
    await stop.wait()
    # A second signal means now.
    now = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, now.set)
    open_now = len(app.listener.connections)
    log.info(
        "draining: %d connections, up to %g s (signal again to stop now)", open_now, app.config.server.drain_timeout
    )
    draining = asyncio.create_task(app.stop())
    hurried = asyncio.create_task(now.wait())
    await asyncio.wait({draining, hurried}, return_when=asyncio.FIRST_COMPLETED)
    if not draining.done():
        app.listener.abort_all()
    clean = await draining
    hurried.cancel()
    log.info("stopped" if clean else "stopped; streams that outlasted server.drain_timeout were cut")
    return 0


def _announce(app: App) -> None:
    server = app.config.server
    scheme = "https" if server.tls else "http"
    log.info("serving %s://%s:%d over %s", scheme, server.host, app.listener.port, _fleet(app))
    log.info("metrics and admin API on http://%s:%d", app.config.admin.host, app.admin.port)


def _fleet(app: App) -> str:
    return ", ".join(f"pool {pool.name} ({len(pool.backends)} backends)" for pool in app.pools.values())


def _raise_file_limit(config: Config) -> None:
    """A connection takes a file descriptor on each side: raise the soft limit as far as allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != soft:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    wanted = 2 * config.server.limits.connections + FILES_BESIDE_CONNECTIONS
    if limit != resource.RLIM_INFINITY and limit < wanted:
        log.warning(
            "server.limits.connections is %d, which needs %d file descriptors, but only %d are allowed: about %d "
            "connections can be served. Raise the limit (ulimit -n, or LimitNOFILE= in systemd).",
            config.server.limits.connections,
            wanted,
            limit,
            max(0, (limit - FILES_BESIDE_CONNECTIONS) // 2),
        )


def _tune_gc() -> None:
    """Requests leave no reference cycles, so the collector finds next to nothing: let it look rarely, and never at
    what was made at start."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
