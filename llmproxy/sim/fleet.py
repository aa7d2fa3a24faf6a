"""A fleet in virtual time: a trace goes through a production routing policy to modelled engines."""

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from math import inf

from llmproxy.core.backend import Backend, BackendSpec, Gauges, Status
from llmproxy.core.ports import Moment, RoutingPolicy
from llmproxy.core.prompt import Prompt, TokenCounts
from llmproxy.core.request import Request
from llmproxy.policy.admission.fifo import FifoQueue
from llmproxy.sim.engine import Engine
from llmproxy.sim.profile import Profile
from llmproxy.sim.sequence import Phase
from llmproxy.sim.sequence import Sequence as EngineSequence
from llmproxy.sim.trace import BLOCK_TOKENS, Arrival, regrid

BYTES_PER_TOKEN = 4


class Job(EngineSequence):
    """A request on its way: `number` in the trace, and its server once it is `placed`, which one that is `shed` never
    is."""

    __slots__ = ("arrival", "done_at", "number", "placed", "request", "server", "shed")

    def __init__(self, number: int, arrival: Arrival, request: Request) -> None:
        super().__init__(arrival.prompt_tokens, max(arrival.output_tokens, 1), blocks=arrival.blocks)
        self.number = number
        self.arrival = arrival
        self.request = request
        self.server: Server
        self.done_at: float | None = None
        self.placed = False
        self.shed = False


class Server:
    """A backend as the policies see it, and the engine behind it."""

    def __init__(self, name: str, profile: Profile, weight: float = 1.0, max_concurrency: int | None = None) -> None:
        self.profile = profile
        self.engine: Engine[Job] = Engine(profile.engine_options())
        spec = BackendSpec(id=name, url=f"http://{name}", weight=weight, max_concurrency=max_concurrency)
        self.backend = Backend(spec, status=Status.HEALTHY)
        self.placed = 0

    def gauges(self, now: float) -> Gauges:
        """What a scrape would read now."""
        engine = self.engine
        untouched = engine.untouched
        return Gauges(
            at=now,
            running=float(engine.running - untouched),
            waiting=float(engine.waiting + untouched),
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
        queue: Callable[[], FifoQueue[Job]] | None = None,
    ) -> None:
        """`estimate`: by what factor a prompt's bytes mislead about its tokens. `stale_s`: how old gauges are when the
        policies get them. `queue` makes the queue in which requests wait at a proxy while all its backends are at
        their `max_concurrency`; needed where a server has one."""
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
        bounded = any(server.backend.spec.max_concurrency is not None for server in self.servers)
        if bounded and queue is None:
            raise ValueError("servers with a max_concurrency need a queue")
        self._queues = [queue() for _ in self._policies] if bounded and queue is not None else []

    def run(self, trace: Sequence[Arrival], progress: Callable[[int], None] | None = None) -> list[Job]:
        """Replay the whole trace; the jobs in the trace's order, all finished or shed."""
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
                job = self._arrive(coming[0], coming[1], now)
                jobs.append(job)
                coming = next(arrivals, None)
                if progress is not None:
                    progress(len(jobs))
                if not job.placed:
                    continue
                index = place[job.server]
            else:
                when, index = heappop(due)
                if when != turn_of[index]:
                    continue
                self._advance(self.servers[index], now)
            engine = self.servers[index].engine
            # Nobody looks at a server between arrivals and scrapes, unless a request gets its first or last token.
            engine.coast(min(coming[1].at_s if coming is not None else inf, next_scrape))
            turn = engine.due
            turn_of[index] = inf if turn is None else turn
            if turn is not None:
                heappush(due, (turn, index))
        return jobs

    def _arrive(self, number: int, arrival: Arrival, now: float) -> Job:
        who = number % len(self._policies)
        size = max(int(arrival.prompt_tokens * BYTES_PER_TOKEN * self._estimate(arrival)), 1)
        prompt = Prompt(size, arrival.blocks[: arrival.prompt_tokens // BLOCK_TOKENS])
        job = Job(number, arrival, Request(stream=True, body_bytes=size, arrived=now, prompt=lambda: prompt))
        if self._queues:
            queue = self._queues[who]
            _send_away(queue, now)
            # While anybody waits there is no room: whoever finishes lets the next one in at once.
            if not self._has_room(who):
                job.shed = not queue.enter(job, now)
                return job
        self._place(job, who, now)
        return job

    def _place(self, job: Job, who: int, now: float) -> None:
        candidates, policy = self._candidates[who], self._policies[who]
        if self._queues:
            candidates = tuple(view for view in candidates if view.has_room)
        view = policy.pick(candidates, job.request, now)
        server = job.server = self._servers[who][view]
        job.placed = True
        if server.profile.block_size != BLOCK_TOKENS:
            job.blocks = regrid(job.blocks, BLOCK_TOKENS, server.profile.block_size)
        server.placed += 1
        view.load.enter()
        policy.observe(Moment.SENT, view, job.request, now)
        server.engine.submit(job, now)

    def _wake(self, who: int, now: float) -> None:
        """A place is free at the only server that has one: whoever is first in line goes there."""
        queue = self._queues[who]
        _send_away(queue, now)
        while self._has_room(who) and (job := queue.next()) is not None:
            self._place(job, who, now)

    def _has_room(self, who: int) -> bool:
        return any(view.has_room for view in self._candidates[who])

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
        for who in range(len(self._queues)):
            self._wake(who, now)

    def _publish(self, gauges: list[Gauges]) -> None:
        for views in self._views:
            for server, seen in zip(self.servers, gauges, strict=True):
                views[server].gauges = seen


def _send_away(queue: FifoQueue[Job], now: float) -> None:
    """Shed those who have waited too long. Nothing looks at the queue between two events, so then is soon enough."""
    for job in queue.expired(now):
        job.shed = True
