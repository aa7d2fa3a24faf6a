"""What the proxy answers itself: `/v1/models`, `/health`, and browsers' preflights."""

import json
from collections.abc import Callable, Iterable

from llmproxy.core.errors import BadRequest, NotFound, ProxyError
from llmproxy.pipeline.answer import error_answer, own_answer
from llmproxy.pipeline.cors import is_preflight
from llmproxy.pipeline.exchange import Exchange
from llmproxy.pipeline.routes import Local


class LocalAnswers:
    """`backend_models` gives the names the backends serve, for when none are configured; `started_at` is Unix time."""

    def __init__(self, backend_models: Callable[[], Iterable[str]], started_at: float) -> None:
        self._backend_models = backend_models
        self._created = int(started_at)

    def answer(self, x: Exchange, headers: bytes) -> None:
        """Write the answer."""
        request = x.request
        if is_preflight(request):
            status, body = 204, b""
        elif request.method not in (b"GET", b"HEAD"):
            allow = ((b"Allow", b"GET, HEAD"),)
            self._error(x, BadRequest("use GET here", code="method_not_allowed", status=405, headers=allow), headers)
            return
        elif x.route.local is Local.HEALTH:
            draining = x.site.draining
            status, body = (503, b'{"status":"draining"}') if draining else (200, b'{"status":"ok"}')
        else:
            names = list(x.snapshot.models) or sorted(set(self._backend_models()))
            if x.identity is not None:
                names = [name for name in names if x.identity.allows(name)]
            wanted = x.route.path.decode("latin-1").removeprefix("/v1/models").strip("/")
            if wanted and wanted not in names:
                missing = f"The model `{wanted[:200]}` does not exist."
                self._error(x, NotFound(missing, code="model_not_found", param="model"), headers)
                return
            cards = [self._card(name) for name in names if not wanted or name == wanted]
            status, body = 200, json.dumps(cards[0] if wanted else {"object": "list", "data": cards}).encode()
        x.status = status
        answer = own_answer(status, body, keep_alive=x.keeps_alive, minor=request.minor, headers=headers)
        if status == 204:
            answer = answer.replace(b"Content-Type: application/json\r\nContent-Length: 0\r\n", b"", 1)
        x.connection.write(answer[: -len(body)] if request.method == b"HEAD" and body else answer)

    def _error(self, x: Exchange, error: ProxyError, headers: bytes) -> None:
        x.error, x.status = error, error.status
        x.connection.write(
            error_answer(
                error,
                x.route.dialect,
                keep_alive=x.keeps_alive,
                minor=x.request.minor,
                headers=headers,
                bodyless=x.request.method == b"HEAD",
            )
        )

    def _card(self, name: str) -> dict[str, object]:
        return {"id": name, "object": "model", "created": self._created, "owned_by": "llmproxy"}
