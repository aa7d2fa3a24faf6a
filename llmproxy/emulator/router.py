"""From a request to its handler, past the faults and the API key."""

from llmproxy.emulator.errors import ApiError, error_body
from llmproxy.emulator.faults import Fault, FaultError, Plan, Scope
from llmproxy.emulator.generation import EVENT_STREAM
from llmproxy.emulator.reply import Reply
from llmproxy.emulator.routes import audio, control, emulator, generate, inference, responses, texts, vectors
from llmproxy.emulator.routes.handler import Handler, Routes
from llmproxy.emulator.site import Site

_HEALTH_PATHS = frozenset({"/health", "/ping"})
_GUARDED = ("/v1/", "/v2/", "/inference/", "/cohere/")


class Router:
    """`answer` is called once for each request. Every request on an engine's route is counted until its reply ends."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._routes: Routes = {
            **generate.ROUTES,
            **responses.ROUTES,
            **vectors.ROUTES,
            **texts.ROUTES,
            **audio.ROUTES,
            **inference.ROUTES,
            **control.ROUTES,
            **emulator.ROUTES,
        }
        self._paths = frozenset(path for _, path in self._routes)

    def answer(self, reply: Reply) -> None:
        path = reply.request.path
        self._label(reply)
        if path.startswith(emulator.PREFIX):
            self._handle(reply, Plan())
            return
        scope = self._scope(reply.request.method, path)
        if scope is Scope.MODELS:
            self._count(reply)
        try:
            plan = self._site.faults.plan(scope, reply.request.header("x-emulate-fault"))
        except FaultError as error:
            reply.json(400, error_body(ApiError(400, f"X-Emulate-Fault: {error}"), path))
            return
        reply.surplus = plan.surplus
        if plan.begin is not None:
            self._begin_with(reply, plan.begin)
        elif not self._authorized(reply):
            reply.json(401, {"error": "Unauthorized"})
        else:
            self._handle(reply, plan)

    def _handle(self, reply: Reply, plan: Plan) -> None:
        method, path = reply.request.method, reply.request.path
        handler = self._find("GET" if method == "HEAD" else method, path)
        if handler is None:
            known = self._shape(path) in self._paths
            reply.json(405 if known else 404, {"detail": "Method Not Allowed" if known else "Not Found"})
            return
        try:
            handler(self._site, reply, plan)
        except ApiError as error:
            reply.json(error.status, error_body(error, path))

    def _find(self, method: str, path: str) -> Handler | None:
        return self._routes.get((method, self._shape(path)))

    def _shape(self, path: str) -> str:
        """The path as the table spells it."""
        if not path.startswith(responses.PREFIX):
            return path
        id_, slash, rest = path.removeprefix(responses.PREFIX).partition("/")
        return f"{responses.PREFIX}{{id}}{slash}{rest}" if id_ else path

    def _scope(self, method: str, path: str) -> Scope:
        if path in _HEALTH_PATHS:
            return Scope.HEALTH
        # ALL is matched by nothing but faults for everything.
        return Scope.ALL if (method, path) in control.ROUTES or method in ("GET", "HEAD") else Scope.MODELS

    def _authorized(self, reply: Reply) -> bool:
        key = self._site.options.api_key
        if not key or not reply.request.path.startswith(_GUARDED):
            return True
        return reply.request.header("authorization") == f"Bearer {key}"

    def _label(self, reply: Reply) -> None:
        options = self._site.options
        own_id = reply.request.header("x-request-id")
        if options.name:
            reply.extra.append(("x-emulator", options.name))
        if options.request_id_headers and own_id:
            reply.extra.append(("x-request-id", own_id))

    def _count(self, reply: Reply) -> None:
        stats, id_ = self._site.stats, reply.request.header("x-request-id")
        stats.received += 1
        stats.in_flight += 1
        if id_:
            stats.received_ids.append(id_)

        def over(gone: bool) -> None:
            stats.in_flight -= 1
            stats.faulted += reply.faulted
            if gone:
                stats.aborted += 1
            elif not reply.faulted:
                stats.served += 1
            if id_ and (gone or not reply.faulted):
                (stats.aborted_ids if gone else stats.served_ids).append(id_)

        reply.on_over = over

    def _begin_with(self, reply: Reply, fault: Fault) -> None:
        """The fault decides what the answer is."""
        reply.faulted = True
        if fault.kind == "reset":
            reply.reset()
        elif fault.kind == "garbage":
            reply.garbage()
        elif fault.kind in ("reset_after_headers", "stall", "sleep"):
            reply.start(EVENT_STREAM if b'"stream"' in reply.request.body else "application/json")
            if fault.kind == "reset_after_headers":
                reply.reset()
        elif fault.kind == "status":
            wait_s = fault.retry_after_s
            headers = [] if wait_s is None else [("retry-after", str(wait_s))]
            error = ApiError(int(fault.value), "emulated failure")
            reply.json(error.status, error_body(error, reply.request.path), headers)
        # What is left is `hang`: the reply stays open until the client leaves.
