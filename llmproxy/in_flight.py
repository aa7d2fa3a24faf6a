"""What the requests in flight say of the backends they are at, for health by progress."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from llmproxy.core.backend import Backend
from llmproxy.core.clock import Clock
from llmproxy.core.ports import Timing
from llmproxy.pipeline.exchange import Exchange, Phase
from llmproxy.policy.health.progress import Work
from llmproxy.wire.client import ClientConnection

BYTES_PER_TOKEN: Final = 3.0
TOKENS_MAX: Final = 2_000_000.0
"""No engine takes a longer prompt; a body may be a picture."""
_KEEP_S: Final = 1.0
_AT_A_BACKEND: Final = frozenset({Phase.ANSWER, Phase.RELAYING})
_NO_WORK: Final = Work()


class InFlight:
    """`work(backend)` goes through all connections at most once a second, however many backends there are."""

    def __init__(self, connections: Callable[[], Iterable[ClientConnection]], clock: Clock) -> None:
        self._connections = connections
        self._clock = clock
        self._seen_at = float("-inf")
        self._work: dict[Backend, Work] = {}

    def work(self, backend: Backend) -> Work:
        """What this proxy waits for from `backend`."""
        now = self._clock()
        if now - self._seen_at > _KEEP_S:
            self._seen_at = now
            self._work = _by_backend(self._exchanges())
        return self._work.get(backend, _NO_WORK)

    def exchanges_at(self, backend: Backend) -> list[Exchange]:
        """The requests that wait for `backend`."""
        return [x for x in self._exchanges() if x.backend is backend]

    def _exchanges(self) -> Iterator[Exchange]:
        """Every request that an engine is computing, as far as can be seen from here."""
        for connection in self._connections():
            x = connection.under_way
            if (
                isinstance(x, Exchange)
                and x.phase in _AT_A_BACKEND
                and x.backend is not None
                and x.relay is not None
                # Not what only passes by an engine, nor what waits for its own client.
                and x.route.retryable
                and not connection.write_paused
            ):
                yield x


def _by_backend(exchanges: Iterable[Exchange]) -> dict[Backend, Work]:
    found: defaultdict[Backend, list[Exchange]] = defaultdict(list)
    for x in exchanges:
        if x.backend is not None:
            found[x.backend].append(x)
    return {backend: _work(backend, waiting) for backend, waiting in found.items()}


def _work(backend: Backend, exchanges: list[Exchange]) -> Work:
    newest, unanswered, wholes = float("-inf"), 0.0, []
    for x in exchanges:
        if x.reader is not None and x.reader.last_at:
            newest = max(newest, x.reader.last_at)
        elif x.view is not None:
            tokens = min(x.view.body_bytes / BYTES_PER_TOKEN, TOKENS_MAX)
            if x.view.stream:
                unanswered += tokens
            else:
                wholes.append((x.sent_at, tokens))
    return Work(len(exchanges), newest, unanswered, _seen_tokens_per_s(backend, exchanges[0]), tuple(wholes))


def _seen_tokens_per_s(backend: Backend, x: Exchange) -> float | None:
    """What the pool's routing policy has seen the backend do, if it looks."""
    routing = x.target.pool.routing if x.target is not None else None
    return routing.seen_tokens_per_s(backend) if isinstance(routing, Timing) else None
