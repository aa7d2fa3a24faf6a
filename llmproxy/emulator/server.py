"""One emulated server: the engine, its routes and its listener, in the running event loop."""

import asyncio
import random
import time
from collections import deque
from email.utils import formatdate
from types import TracebackType
from typing import Any

from llmproxy.emulator.choice import Choice
from llmproxy.emulator.connection import Connection
from llmproxy.emulator.driver import Driver
from llmproxy.emulator.faults import FaultBoard
from llmproxy.emulator.incoming import Incoming
from llmproxy.emulator.listener import Listener
from llmproxy.emulator.options import EmulatorOptions
from llmproxy.emulator.reply import Reply
from llmproxy.emulator.router import Router
from llmproxy.emulator.site import Site
from llmproxy.sim import Engine

_REMEMBERED_REQUESTS = 64
_CLOSE_S = 1.0
"""How long connections may take to send what is written before they are cut."""


class Emulator:
    """`async with Emulator(options) as emulator:` serves at `emulator.url` until the block ends.

    The port is known as soon as it is entered; with `startup_s` connections are refused for that long (`ready()`
    waits). `requests` holds the last requests as they were received.
    """

    def __init__(self, options: EmulatorOptions | None = None) -> None:
        self.options = options or EmulatorOptions()
        self.keepalive_s = self.options.keepalive_s
        self.body_max_bytes = self.options.body_max_bytes
        self.requests: deque[Incoming] = deque(maxlen=_REMEMBERED_REQUESTS)
        self._faults = FaultBoard(random.Random(self.options.seed))  # noqa: S311
        self._faults.set(self.options.fail)
        self._connections: set[Connection] = set()
        self._empty = asyncio.Event()
        self._open_task: asyncio.Task[None] | None = None
        self._listener: Listener | None = None
        self._site: Site | None = None
        self._router: Router | None = None
        self._refusing = False
        self._date = (0, "")

    async def __aenter__(self) -> "Emulator":
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Bind, and listen after `startup_s`. Raises OSError when the port is taken."""
        engine: Engine[Choice] = Engine(self.options.engine)
        driver = Driver(engine, _deliver)
        self._site = Site(self.options, engine, driver, self._faults, self.set_fault)
        self._router = Router(self._site)
        self._listener = Listener(self.options.host, self.options.port, lambda: Connection(self))
        refusing = self._faults.refusal
        delay_s = self.options.startup_s
        self._refusing = refusing is not None
        if refusing is not None:
            self._listen_after(refusing.value + delay_s if refusing.value else None)
        elif delay_s > 0:
            self._listen_after(delay_s)
        else:
            await self._listener.open()

    async def ready(self) -> None:
        """Wait until it listens (at once when nothing will make it)."""
        if self._open_task is not None:
            await self._open_task

    async def stop(self) -> None:
        """Stop at once: connections are reset, and nothing is left behind."""
        self._listen_after(None)
        if self._listener is not None:
            self._listener.release()
        self._kill_connections()
        await self._empty_of_connections(_CLOSE_S)
        self.site.driver.stop()

    async def drain(self, timeout_s: float) -> None:
        """As vLLM on SIGTERM: new requests get 500, running ones may finish for `timeout_s`, then are aborted."""
        site = self.site
        site.shutting_down = True
        if site.generations and timeout_s > 0:
            await _within(timeout_s, site.settled)
        for generation in list(site.generations):
            generation.abort()
        if self._listener is not None:
            self._listener.close()
        for connection in self._connections:
            connection.close()
        await self._empty_of_connections(_CLOSE_S)

    def kill(self) -> None:
        """What SIGKILL looks like from outside: the port refuses and every connection is reset. `revive` undoes it."""
        self._listen_after(None)
        if self._listener is not None:
            self._listener.close()
        self._kill_connections()

    async def revive(self) -> None:
        """Listen again after `kill`, with the prefix cache empty."""
        self.site.engine.blocks.clear_cache()
        assert self._listener is not None
        await self._listener.open()

    def set_fault(self, spec: str) -> None:
        """Replace the standing faults ("" clears them). Raises FaultError and changes nothing.

        After `refuse` is cleared, `ready()` waits until it listens again.
        """
        self._faults.set(spec)
        listener, refusing = self._listener, self._faults.refusal
        if listener is None:
            return
        was_refusing, self._refusing = self._refusing, refusing is not None
        if refusing is not None:
            listener.close()
            for connection in self._connections:
                if connection.idle:
                    connection.close()
            self._listen_after(refusing.value or None)
        elif was_refusing and not listener.listening:
            self._listen_after(0.0)

    @property
    def site(self) -> Site:
        assert self._site is not None, "the emulator was not started"
        return self._site

    @property
    def port(self) -> int:
        assert self._listener is not None, "the emulator was not started"
        return self._listener.port

    @property
    def url(self) -> str:
        host = f"[{self.options.host}]" if ":" in self.options.host else self.options.host
        return f"http://{host}:{self.port}"

    @property
    def listening(self) -> bool:
        return self._listener is not None and self._listener.listening

    @property
    def connections(self) -> int:
        return len(self._connections)

    @property
    def received(self) -> int:
        return self.site.stats.received

    @property
    def in_flight(self) -> int:
        return self.site.stats.in_flight

    @property
    def served(self) -> int:
        return self.site.stats.served

    @property
    def aborted(self) -> int:
        return self.site.stats.aborted

    def state(self) -> dict[str, Any]:
        """What `GET /emulator/state` says."""
        return self.site.state() | {"connections": self.connections, "listening": self.listening}

    # What connections call.

    def opened(self, connection: Connection) -> None:
        self._connections.add(connection)
        self._empty.clear()

    def closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    def answer(self, reply: Reply) -> None:
        self.requests.append(reply.request)
        assert self._router is not None
        self._router.answer(reply)

    def http_date(self) -> str:
        now = int(time.time())
        if self._date[0] != now:
            self._date = (now, formatdate(now, usegmt=True))
        return self._date[1]

    # Its own business.

    def _listen_after(self, delay_s: float | None) -> None:
        """Open the listener after a while; None: not at all."""
        task, self._open_task = self._open_task, None
        if task is not None:
            task.cancel()
        if delay_s is not None:
            self._open_task = asyncio.get_running_loop().create_task(self._open_after(delay_s))

    async def _open_after(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        assert self._listener is not None
        await self._listener.open()
        self._open_task = None

    def _kill_connections(self) -> None:
        for connection in self._connections:
            connection.die()

    async def _empty_of_connections(self, timeout_s: float) -> None:
        if self._connections and not await _within(timeout_s, self._empty):
            self._kill_connections()
            await self._empty.wait()


def _deliver(choice: Choice, now: float) -> None:
    if choice.generation is not None:
        choice.generation.produced(choice, now)


async def _within(timeout_s: float, event: asyncio.Event) -> bool:
    try:
        await asyncio.wait_for(event.wait(), timeout_s)
    except TimeoutError:
        return False
    return True
