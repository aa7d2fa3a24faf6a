"""What a client's connection needs of those around it: the handler above, the listener beside, the exchange it runs."""

from collections.abc import Callable
from typing import Protocol

from llmproxy.core.errors import ProxyError
from llmproxy.wire.client import ClientConnection
from llmproxy.wire.deadlines import Deadlines
from llmproxy.wire.inbound import InboundRequest
from llmproxy.wire.settings import ConnectionSettings


class Exchange(Protocol):
    """A request being answered, as its connection sees it."""

    def abandon(self) -> None:
        """The client left: release everything now."""

    def expired(self, now: float) -> None:
        """The deadline set on the connection has passed."""

    def fail(self, error: ProxyError) -> None:
        """End it with `error`, as well as what is already answered allows."""

    def flow(self, paused: bool) -> None:
        """The client reads too slowly (True) or has caught up (False)."""


class RequestHandler(Protocol):
    """What a connection needs from above."""

    def plan_body(self, request: InboundRequest) -> int:
        """Called on the head. The body's limit in bytes when it is to be read whole, -1 to stream it through. Sets
        `request.overflows` when it is to be streamed as soon as it turns out to be larger, rather than refused.
        Raises `ProxyError` to refuse the request before its body is read."""

    def reserve(self, size: int) -> bool:
        """Count `size` more buffered body bytes; False when the proxy holds too many already."""

    def release(self, size: int) -> None:
        """Give buffered body bytes back."""

    def begin(self, connection: ClientConnection, request: InboundRequest) -> Exchange | None:
        """Answer `request` (its body is whole, or streamed). None when it was answered at once."""

    def refuse(self, connection: ClientConnection, request: InboundRequest, error: ProxyError) -> None:
        """Answer a request that was refused on the wire."""


class Hub(Protocol):
    """What the connections of one listener share."""

    handler: RequestHandler
    settings: ConnectionSettings
    deadlines: Deadlines
    clock: Callable[[], float]
    size_check_bytes: int
    """Reads up to this size cannot hold a head that is too large: the smaller of the two bounds in `settings`."""

    def opened(self, connection: ClientConnection) -> bool:
        """Count a connection in; False when there are too many."""

    def closed(self, connection: ClientConnection) -> None: ...
