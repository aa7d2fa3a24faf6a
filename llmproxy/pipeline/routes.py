"""Which paths pass, and what each is: matched on the decoded, normalised path, denied by default."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from llmproxy.core.enums import plain
from llmproxy.core.errors import BadRequest, Forbidden, NotFound


@plain
class Local(Enum):
    """Routes that the proxy answers itself."""

    MODELS = "models"
    HEALTH = "health"


@plain
class Dialect(Enum):
    """Whose error format a path speaks."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"


@dataclass(frozen=True, slots=True)
class Route:
    """What a path is. `retryable`: it only computes, so a POST may be sent again elsewhere."""

    path: bytes
    dialect: Dialect = Dialect.OPENAI
    json: bool = True
    retryable: bool = False
    has_model: bool = True
    computes: bool = True
    """The engine computes what is asked. Others look at a prompt only, and leave nothing in a cache."""
    responses: bool = False
    """Answers of `/v1/responses`, which live on the backend that made them."""
    local: Local | None = None
    pool: str | None = None

    @property
    def text(self) -> str:
        """The path as text."""
        return self.path.decode("latin-1")


_INFERENCE: Final = (
    "/v1/chat/completions",
    "/v1/chat/completions/batch",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/rerank",
    "/v2/rerank",
    "/rerank",
    "/v1/score",
    "/score",
    "/tokenize",
    "/detokenize",
    "/pooling",
    "/classify",
    "/inference/v1/generate",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v1/audio/speech",
)
_COUNTING: Final = frozenset({"/tokenize", "/detokenize"})
_CONTROL: Final = (
    "/sleep",
    "/wake_up",
    "/is_sleeping",
    "/pause",
    "/resume",
    "/is_paused",
    "/reset_prefix_cache",
    "/reset_mm_cache",
    "/reset_encoder_cache",
    "/collective_rpc",
    "/start_profile",
    "/stop_profile",
    "/server_info",
    "/scale_elastic_ep",
    "/is_scaling_elastic_ep",
    "/abort_requests",
    "/inference/v1/abort_requests",
    "/init_weight_transfer_engine",
    "/update_weights",
    "/kv_event_sources",
    "/metrics",
    "/load",
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
)
_PREFIXES: Final = ("/v1/", "/inference/")
_CLOSED: Final = "this route controls the engine and is closed; server.allow_routes can open it"


class RouteTable:
    """Paths -> routes. Built from the configuration, replaced whole on reload.

    `extra` are the configuration's prefixes -> pools. The longest one wins, and says where a path goes, not what it is:
    what is known of the path stays. `/` is for the paths that nothing else claims. None of them opens a closed one.
    """

    def __init__(self, allow: Iterable[str] = (), extra: Mapping[str, str] | None = None) -> None:
        prefixes = {prefix.rstrip("/").encode(): pool for prefix, pool in (extra or {}).items()}
        self._rest = prefixes.pop(b"", None)
        self._prefixes = sorted(prefixes.items(), key=lambda item: -len(item[0]))
        exact = [
            Route(path.encode(), retryable=True, json="/audio/tr" not in path, computes=path not in _COUNTING)
            for path in _INFERENCE
        ]
        messages = b"/v1/messages"
        exact += [
            Route(messages, Dialect.ANTHROPIC, retryable=True),
            Route(messages + b"/count_tokens", Dialect.ANTHROPIC, retryable=True, computes=False),
            Route(b"/v1/responses", retryable=True, responses=True),
            Route(b"/v1/models", has_model=False, local=Local.MODELS),
            Route(b"/health", has_model=False, local=Local.HEALTH),
            Route(b"/ping", has_model=False, local=Local.HEALTH),
        ]
        self._exact = {route.path: self._placed(route, route.path) for route in exact}
        self._allowed = {path.rstrip("/").encode() for path in allow}
        self._denied = {path.encode() for path in _CONTROL} - self._allowed

    def match(self, raw_path: bytes) -> Route:
        """The route of a request's path. Raises `NotFound`, `Forbidden` or `BadRequest`."""
        return self._exact.get(raw_path) or self._match_slowly(canonical_path(raw_path))

    def _match_slowly(self, path: bytes) -> Route:
        bare = path.rstrip(b"/") or b"/"
        if bare in self._denied:
            raise Forbidden(_CLOSED)
        route = self._exact.get(bare)
        if route is not None:
            return route
        known = self._known(path, bare)
        route = self._placed(known or Route(path, json=False, has_model=False), bare)
        if known is not None or route.pool is not None:
            return route
        if self._rest is not None:
            # vLLM's /metrics answers for all that is below it as well.
            if any(bare.startswith(closed + b"/") for closed in self._denied):
                raise Forbidden(_CLOSED)
            return replace(route, pool=self._rest)
        raise NotFound(f"no such route: {path.decode('latin-1')[:200]}", code="route_not_found")

    def _known(self, path: bytes, bare: bytes) -> Route | None:
        """What the proxy knows of a path that is not listed."""
        if bare in self._allowed:
            return Route(path, json=False, has_model=False)
        text = path.decode("latin-1")
        if text.startswith("/v1/models/"):
            return Route(path, has_model=False, local=Local.MODELS)
        if text.startswith("/v1/responses/"):
            return Route(path, json=False, has_model=False, responses=True)
        if text.startswith("/v1/messages/"):
            return Route(path, Dialect.ANTHROPIC, json=False)
        return Route(path, json=False) if text.startswith(_PREFIXES) else None

    def _placed(self, route: Route, bare: bytes) -> Route:
        """`route` in the pool that the longest prefix of its path names, if one does."""
        for prefix, pool in self._prefixes:
            if bare == prefix or bare.startswith(prefix + b"/"):
                return replace(route, pool=pool, local=None)
        return route


def canonical_path(raw: bytes) -> bytes:
    """The path as an engine's router reads it: decoded once, slashes collapsed, dot segments resolved.

    Raises `BadRequest` for paths that two programs could read differently (NUL, backslash, climbing out).
    """
    path = unquote_to_bytes(raw)
    if b"\0" in path or b"\\" in path or any(byte < 0x20 or byte == 0x7F for byte in path):
        raise BadRequest("the path has characters that no route has", code="invalid_target")
    segments: list[bytes] = []
    for segment in path.split(b"/"):
        if segment == b"..":
            if not segments:
                raise BadRequest("the path climbs above its root", code="invalid_target")
            segments.pop()
        elif segment not in (b"", b"."):
            segments.append(segment)
    canonical = b"/" + b"/".join(segments)
    if segments and path.endswith(b"/"):
        canonical += b"/"
    return canonical


def wire_path(raw: bytes) -> bytes:
    """The path to send upstream: as it came when it is canonical, otherwise rewritten, so that the engine sees the
    very path that was matched."""
    if b"%" not in raw and b"//" not in raw and b"/." not in raw:
        return raw
    return quote(canonical_path(raw), safe="/:@!$&'()*+,;=~-._").encode()
