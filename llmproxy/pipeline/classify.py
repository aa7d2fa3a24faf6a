"""What a request wants, read from its body once; where it goes; and the body as the engines there are to see it."""

import contextlib

from llmproxy.core.backend import Backend
from llmproxy.core.errors import BadRequest
from llmproxy.core.request import Request
from llmproxy.pipeline import body as bodies
from llmproxy.pipeline.exchange import ENDS_WITH_DONE, Exchange
from llmproxy.pipeline.snapshot import Target


def classify(x: Exchange) -> None:
    """Read what routing needs from the body. Raises `BadRequest`."""
    request, route = x.request, x.route
    if request.body:
        if request.content_type[:10].lower() == b"multipart/":
            x.model, _ = bodies.multipart_model(request.body, request.content_type)
        elif route.json:
            x.body = bodies.decode(request.body)
        elif route.has_model and b"json" in request.content_type:
            # A route nobody listed: what it says helps, and what is wrong with it the engine will say.
            with contextlib.suppress(BadRequest):
                x.body = bodies.decode(request.body)
        if isinstance(x.body.model, str):
            x.model = x.body.model
    elif route.json and request.method == b"POST" and not request.streamed:
        raise BadRequest("the request has no body", code="invalid_json")
    if x.model is None and (named := request.header(b"x-llmproxy-model")) is not None:
        x.model = named.decode("latin-1").strip()
    elif x.model is None and x.body.model is not None:
        raise BadRequest("model must be a string", code="invalid_model", param="model")


def resolve(x: Exchange, maker: Backend | None) -> Target:
    """Model -> pool, and the body as that pool's engines are to see it. `maker` made the response that a request names
    which names no model. Raises `ProxyError`."""
    request, connection = x.request, x.connection
    home = x.snapshot.home(maker) if maker is not None else None
    target = x.target = home or x.snapshot.target(x.route, x.model)
    x.series = x.site.metrics.series(target.pool.name, x.model)
    total_s = target.terms.total_s
    if total_s:
        x.total_at = request.arrived + total_s
        connection.deadline = x.total_at
    if target.rewrite is not None and x.model is not None:
        _rewrite(x, target.rewrite)
    if _lacks_usage(x, target):
        x.injects_usage = True
        x.payload = bodies.with_usage(x.payload, x.body.stream_options)
    client_ip = _client_ip(x)
    if x.identity is None and x.snapshot.anonymous_tier:
        x.identity = x.snapshot.anonymous(client_ip)
    x.view = Request(
        path=x.route.text,
        model=x.model if target.rewrite is None else target.rewrite,
        stream=x.body.stream is True,
        client_ip=client_ip,
        headers=request.headers,
        body_bytes=len(request.body),
        arrived=request.arrived,
        field=x.find_field,
        prompt=x.read_prompt,
        identity=x.identity,
    )
    if x.site.prefix_secret:
        # The access log is written when the body is gone.
        _ = x.view.prompt
    return target


def _rewrite(x: Exchange, name: str) -> None:
    """Let the body name the model as the engines know it."""
    request = x.request
    if x.body.model is not None:
        x.payload = bodies.with_model(request.body, name)
    elif request.body:
        _, (start, end) = bodies.multipart_model(request.body, request.content_type)
        if end:
            x.payload = request.body[:start] + name.encode() + request.body[end:]


def _lacks_usage(x: Exchange, target: Target) -> bool:
    """Whether a stream is to be counted whose client has not asked for token counts."""
    if not target.terms.inject_usage or x.body.stream is not True or x.route.path not in ENDS_WITH_DONE:
        return False
    return not bodies.asks_for_usage(x.body.stream_options)


def _client_ip(x: Exchange) -> str:
    """Who asks: the peer, or whom a trusted proxy speaks for."""
    if not x.snapshot.networks:
        return x.connection.peer_ip
    return x.snapshot.client_ip(x.connection.peer_ip, x.request.forwarded_for)
