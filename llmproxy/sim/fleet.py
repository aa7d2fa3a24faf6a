"""A fleet in virtual time: a trace goes through a production routing policy to modelled engines."""

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from math import inf

from llmproxy.core.backend import Backend, BackendSpec, Gauges, Status
from llmproxy.core.ports import Moment, RoutingPolicy
from llmproxy.core.prompt import Prompt, TokenCounts
from llmproxy.core.request import Request
from llmproxy.sim.engine import Engine
from llmproxy.sim.profile import Profile
from llmproxy.sim.sequence import Phase
from llmproxy.sim.sequence import Sequence as EngineSequence
from llmproxy.sim.trace import BLOCK_TOKENS, Arrival

BYTES_PER_TOKEN = 4


class Job(EngineSequence):
    """A request on its way: `number` in the trace, and where it was sent."""

    __slots__ = ("arrival", "done_at", "number", "request", "server")

    def __init__(self, number: int, arrival: Arrival, request: Request) -> None:
        super().__init__(arrival.prompt_tokens, max(arrival.output_tokens, 1), blocks=arrival.blocks)
        self.number = number
        self.arrival = arrival
        self.request = request
        self.server: Server
        self.done_at: float | None = None


class Server:
    """A backend as the policies see it, and the engine behind it."""

    def __init__(self, name: str, profile: Profile, weight: float = 1.0) -> None:
        self.profile = profile
        self.engine: Engine[Job] = Engine(profile.engine_options())
        self.backend = Backend(BackendSpec(id=name, url=f"http://{name}", weight=weight), status=Status.HEALTHY)
        self.placed = 0

    def gauges(self, now: float) -> Gauges:
        """What a scrape would read now."""
        engine = self.engine
        return Gauges(
            at=now,
            running=float(engine.running),
            waiting=float(engine.waiting),
            kv_usage=engine.kv_usage,
            kv_tokens=self.profile.kv_tokens,
        )


class Fleet:
    """`servers` behind one or several proxies, each with a policy of its own; requests take them in turns."""

    def __init__(
        self,
        servers: Sequence[Server],
        policies: Sequence[RoutingPolicy],
        *,
        scrape_s: float = 1.0,
        stale_s: float = 0.0,
        estimate: Callable[[Arrival], float] = lambda arrival: 1.0,
    ) -> None:
        """`estimate`: by what factor a prompt's bytes mislead about its tokens. `stale_s`: how old gauges are when the
        policies get them."""
        self.servers = list(servers)
        self._policies = list(policies)
        self._scrape_s = scrape_s
        self._stale_s = stale_s
        self._estimate = estimate
        # A proxy counts only what it sent itself.
        self._views = [
            {server: Backend(server.backend.spec, status=Status.HEALTHY) for server in self.servers}
            for _ in self._policies
        ]
        self._servers = [{view: server for server, view in views.items()} for views in self._views]
        self._candidates = [tuple(views.values()) for views in self._views]

    def run(self, trace: Sequence[Arrival], progress: Callable[[int], None] | None = None) -> list[Job]:
        """Replay the whole trace; the jobs in the trace's order, all finished."""
        jobs: list[Job] = []
        due: list[tuple[float, int]] = []
        turn_of = [inf] * len(self.servers)
        place = {server: index for index, server in enumerate(self.servers)}
        arrivals = iter(enumerate(trace))
        coming = next(arrivals, None)
        next_scrape = 0.0
        unread: list[tuple[float, list[Gauges]]] = []
        while coming is not None or due:
            arrives_at = coming[1].at_s if coming is not None else inf
            now = min(arrives_at, due[0][0] if due else inf)
            while next_scrape <= now:
                unread.append((next_scrape + self._stale_s, [server.gauges(next_scrape) for server in self.servers]))
                next_scrape += self._scrape_s
            while unread and unread[0][0] <= now:
                self._publish(unread.pop(0)[1])
            if coming is not None and arrives_at <= now:
                job = self._place(coming[0], coming[1], now)
                jobs.append(job)
                index = place[job.server]
                coming = next(arrivals, None)
                if progress is not None:
                    progress(len(jobs))
            else:
                when, index = heappop(due)
                if when != turn_of[index]:
                    continue
                self._advance(self.servers[index], now)
            turn = self.servers[index].engine.due
            turn_of[index] = inf if turn is None else turn
            if turn is not None:
                heappush(due, (turn, index))
        return jobs

    def _place(self, number: int, arrival: Arrival, now: float) -> Job:
        who = number % len(self._policies)
        size = max(int(arrival.prompt_tokens * BYTES_PER_TOKEN * self._estimate(arrival)), 1)
        prompt = Prompt(size, arrival.blocks[: arrival.prompt_tokens // BLOCK_TOKENS])
        request = Request(stream=True, body_bytes=size, arrived=now, prompt=lambda: prompt)
        policy = self._policies[who]
        view = policy.pick(self._candidates[who], request, now)
        job = Job(number, arrival, request)
        job.server = self._servers[who][view]
        job.server.placed += 1
        view.load.enter()
        policy.observe(Moment.SENT, view, request, now)
        job.server.engine.submit(job, now)
        return job

    def _advance(self, server: Server, now: float) -> None:
        for job in server.engine.advance(now):
            if job.generated > 1 and job.phase is not Phase.DONE:
                continue
            who = job.number % len(self._policies)
            policy, view = self._policies[who], self._views[who][server]
            if job.generated == 1:
                policy.observe(Moment.FIRST_TOKEN, view, job.request, now)
            if job.phase is Phase.DONE:
                job.done_at = now
                job.request.tokens = TokenCounts(job.prompt_tokens, job.cached_tokens, job.generated)
                view.load.leave()
                policy.observe(Moment.FINISHED, view, job.request, now)

    def _publish(self, gauges: list[Gauges]) -> None:
        for views in self._views:
            for server, seen in zip(self.servers, gauges, strict=True):
                views[server].gauges = seen
