"""What a client sends becomes requests, within bounds.

llhttp parses, and calls back. A request goes to `_accept` when it is whole, or at its head when its body is streamed;
one that is malformed or breaks a bound goes to `_refused` and is the last: nothing is parsed behind it. Sizes are
summed up only for requests that could be too large, because they came in several reads or in a very large one.
"""

from typing import Any

import httptools

from llmproxy.core.errors import ProxyError
from llmproxy.wire import refusals, upgrade
from llmproxy.wire.contracts import Hub
from llmproxy.wire.fields import HeaderList
from llmproxy.wire.flow import Flow
from llmproxy.wire.inbound import FIELDS_MAX, InboundRequest


class Intake(Flow):
    """The middle of a client connection's three layers. `Downstream`, above, says what becomes of requests, in the
    methods at the end."""

    __slots__ = (
        "_began",
        "_fed",
        "_head_bytes",
        "_headers",
        "_held_bytes",
        "_in_message",
        "_input_over",
        "_parser",
        "_quiet_at",
        "_request",
        "_url",
    )

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub)
        # Per connection.
        self._parser: Any = httptools.HttpRequestParser(self)
        self._input_over = False
        # Per request being parsed.
        self._request: InboundRequest | None = None
        self._url = b""
        self._headers: HeaderList = []
        self._held_bytes = 0
        self._in_message = False
        self._began = False
        self._fed = 0
        self._head_bytes = 0
        self._quiet_at = 0

    def _feed(self, data: bytes) -> None:
        """Parse what has been read."""
        self._began = False
        self._fed = len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            self._go_on(memoryview(data)[stop.args[0] :])
        except httptools.HttpParserError as error:
            self._malformed(error)
        if self._in_message:
            self._still_reading()

    def _end_input(self) -> None:
        """Nothing more will come."""
        self._input_over = True
        self._drop_body()
        # The parser refers back to us; without this the pair waits for the garbage collector.
        self._parser = None

    # -- httptools -------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._in_message = True
        self._began = True
        self._url = b""
        self._headers = []

    def on_url(self, url: bytes) -> None:
        self._url = self._url + url if self._url else url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._input_over:
            return
        hub = self._hub
        request = self._request = InboundRequest(hub.clock())
        parser = self._parser
        try:
            # A head that came in one read is no larger than that, so most requests need no sum.
            if self._fed > hub.size_check_bytes or not self._began:
                self._check_sizes()
            # llhttp resets its flags later, so this has to be asked here.
            request.keep_alive = parser.should_keep_alive()
            request.read_head(parser.get_method(), self._url, parser.get_http_version(), self._headers)
            request.limit = hub.handler.plan_body(request)
        except ProxyError as error:
            self._refuse(error)
            return
        length = request.content_length
        if request.limit < 0:
            request.streamed = True
        elif length is not None and length > request.limit:
            self._refuse(refusals.body_too_large(request.limit))
            return
        if length or request.chunked:
            # What follows are trailers: they end here, and never count as headers (RFC 9110, 6.5.1).
            self._headers = []
            self._quiet_at = -1
            if request.expect_continue:
                self._expects(request)
            if request.streamed:
                self._accept(request)

    def on_body(self, body: bytes) -> None:
        request = self._request
        if request is None or self._input_over:
            return
        size = len(body)
        request.body_bytes += size
        if request.streamed:
            request.parts.append(body)
            return
        if request.body_bytes > request.limit:
            if request.overflows:
                self._overflow(request, body)
            else:
                self._refuse(refusals.body_too_large(request.limit))
        elif not self._hub.handler.reserve(size):
            self._refuse(refusals.too_much_held())
        else:
            self._held_bytes += size
            request.parts.append(body)
            if len(request.parts) > request.loose:
                request.tidy()

    def on_message_complete(self) -> None:
        request = self._request
        if request is not None and request.upgrade and upgrade.has_body_behind(request, self._parser):
            return
        self._request = None
        self._in_message = False
        if request is None or self._input_over:
            return
        if not request.streamed:
            request.held, self._held_bytes = self._held_bytes, 0
        request.finish_body()
        if not (request.streamed and (request.content_length or request.chunked)):
            self._accept(request)

    # -- bounds ----------------------------------------------------------------------------------------------------

    def _still_reading(self) -> None:
        """The request is not whole yet: bound its size and its time."""
        if self._input_over:
            return
        request = self._request
        if request is not None:
            self._still_in_body(request)
            return
        if self._began:
            # What was read before it began is not its own.
            self._head_bytes = self._head_size()
        else:
            self._head_bytes += self._fed
        settings = self._hub.settings
        if self._head_bytes > settings.header_bytes or len(self._headers) > FIELDS_MAX:
            self._refuse(refusals.head_too_large())
        elif self._began:
            self._more_within(settings.header_s)

    def _still_in_body(self, request: InboundRequest) -> None:
        settings = self._hub.settings
        if request.body_bytes != self._quiet_at:
            self._quiet_at = request.body_bytes
            self._head_bytes = 0
            if request.streamed and not request.hand_on():
                self.pause_body()
        else:
            # Nothing but chunk extensions or trailers: bounded like a head.
            self._head_bytes += self._fed
            if self._head_bytes > settings.header_bytes:
                self._refuse(refusals.head_too_large())
                return
        self._more_within(settings.body_s)

    def _check_sizes(self) -> None:
        settings = self._hub.settings
        if len(self._url) > settings.request_line_bytes:
            raise refusals.target_too_long()
        if self._head_size() > settings.header_bytes:
            raise refusals.head_too_large()

    def _head_size(self) -> int:
        return len(self._url) + sum(len(name) + len(value) + 4 for name, value in self._headers)

    def _overflow(self, request: InboundRequest, body: bytes) -> None:
        """A body of unknown length is too large to be read whole: from now on it is streamed."""
        request.streamed = True
        request.held, self._held_bytes = self._held_bytes, 0
        request.parts.append(body)
        self._accept(request)

    def _drop_body(self) -> None:
        if self._held_bytes:
            self._hub.handler.release(self._held_bytes)
            self._held_bytes = 0

    # -- what is not taken -----------------------------------------------------------------------------------------

    def _refuse(self, error: ProxyError) -> None:
        """Answer with `error` after what is under way, then close; nothing more is parsed."""
        request = self._request or InboundRequest(self._hub.clock())
        self._request = None
        self._in_message = False
        self._input_over = True
        self._drop_body()
        self._refused(request, error)

    def _malformed(self, error: httptools.HttpParserError) -> None:
        if isinstance(error, httptools.HttpParserCallbackError):
            # Not the client's fault. The loop logs it and closes the connection.
            raise error.__context__ or error
        if not self._input_over:
            self._refuse(refusals.malformed(error))

    def _go_on(self, rest: memoryview) -> None:
        """The parser has stopped behind a head with `Upgrade`: go on there."""
        while not self._input_over:
            if self._request is not None:
                # What it calls back for the head has been heard already.
                self._input_over = True
                self._parser = upgrade.parser_behind(self._request, self)
                self._input_over = False
                self._headers = []
            if not rest:
                return
            try:
                self._parser.feed_data(rest)
            except httptools.HttpParserUpgrade as stop:
                rest = rest[stop.args[0] :]
            except httptools.HttpParserError as error:
                self._malformed(error)
            else:
                return

    # -- for the layer above to say --------------------------------------------------------------------------------

    def _accept(self, request: InboundRequest) -> None:
        """A request to be answered, when its turn comes."""
        raise NotImplementedError

    def _refused(self, request: InboundRequest, error: ProxyError) -> None:
        """The last request; what has come of it is no good."""
        raise NotImplementedError

    def _expects(self, request: InboundRequest) -> None:
        """The client waits with its body until it is told to go on (RFC 9110, 10.1.1)."""
        raise NotImplementedError

    def _more_within(self, wait_s: float) -> None:
        """The request is not whole; the rest is to come within `wait_s`."""
        raise NotImplementedError
