"""HTTP/1.1 on `asyncio.Protocol`, httptools and uvloop: bytes are copied here, and nothing else is decided.

A `Listener` accepts `Downstream` connections. Each parses requests (pipelined ones too, answered in order) and
hands every complete one to a `RequestHandler`, which lives above this package and knows the connection as a
`ClientConnection`. The handler takes an `UpstreamConnection` from a backend's `ConnectionPool`, sends the request,
and a `Relay` carries the answer back. To each piece of the answer a *reader* (again from above) replies with one of
four verdicts:

* PASS: written as it arrived, byte for byte, chunk framing included;
* HOLD: kept back together with what follows, until another verdict comes;
* DROP: the client never sees it (nor what was held with it);
* bytes: written in its place (replace).

A client's connection is one object in three layers, each a file: `Flow` (how bytes move: reading and writing paused,
and watchers for clients that stand still), on it `Intake` (what is read becomes requests, within bounds), on that
`Downstream` (requests take turns, are handed over, time out, and the connection ends). They are layers by inheritance
because there may be tens of thousands of connections: three objects that know each other would take more memory, and
be a cycle for the garbage collector. What a layer needs of the one above it declares as a method that raises.

Nothing goes downstream, not even the head, before the first verdict other than HOLD and DROP: until then the
request can be tried elsewhere without the client noticing.

Invariants
* Requests are never forwarded in the framing they came in: the head is rebuilt, the length is ours. So no
  disagreement about framing between a client and a backend can smuggle a request (RFC 9112, section 11.2).
* An upstream connection carries one exchange at a time. Bytes that nobody asked for, or left over behind an
  answer, kill it; it is pooled only when it is reading, empty and clean.
* A client that closes, even only its sending side, cancels its exchange at once.
* Slow clients pause their own upstream connection and nobody else's; nothing is buffered beyond the socket's
  high-water mark plus one read.
* Timeouts are swept coarsely (`Deadlines`), since a timer for each request costs more than all of its parsing.
"""
