"""A fleet in virtual time: a trace goes through a production routing policy to modelled engines."""

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from math import inf
from typing import NamedTuple

from llmproxy.core.backend import Backend, BackendSpec, Gauges, Status
from llmproxy.core.identity import Identity
from llmproxy.core.ports import Moment, RoutingPolicy
from llmproxy.core.prompt import Prompt, TokenCounts
from llmproxy.core.request import NORMAL, Request
from llmproxy.policy.admission.admission import Admission
from llmproxy.policy.admission.options import AdmissionOptions
from llmproxy.policy.admission.ticket import Reason, Ticket
from llmproxy.sim.engine import Engine
from llmproxy.sim.profile import Profile
from llmproxy.sim.sequence import Phase
from llmproxy.sim.sequence import Sequence as EngineSequence
from llmproxy.sim.trace import BLOCK_TOKENS, Arrival, regrid

BYTES_PER_TOKEN = 4
SWEEP_S = 0.1
"""While requests wait, how often a proxy looks at its queue although nothing happens."""


class Who(NamedTuple):
    """Who sends a request, and how urgent it is (0 high to 3 batch)."""

    identity: Identity
    priority: int = NORMAL


NOBODY = Who(Identity("trace"))


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
        self.touched = False
        """Something happened there since it was last asked when it is due."""

    def gauges(self, now: float, by_step: bool = False) -> Gauges:
        """What a scrape would read now: how things are, or (`by_step`) how they were when the last step ended."""
        engine = self.engine
        if by_step:
            running, waiting, kv_used = engine.published
            kv_usage = kv_used / engine.blocks.total
        else:
            untouched, kv_usage = engine.untouched, engine.kv_usage
            running, waiting = engine.running - untouched, engine.waiting + untouched
        return Gauges(
            at=now,
            running=float(running),
            waiting=float(waiting),
            kv_usage=kv_usage,
            kv_tokens=self.profile.kv_tokens,
            prefix_queries=float(engine.prefix_queries),
            prefix_hits=float(engine.prefix_hits),
        )


class Gate:
    """One proxy of the fleet: its policy, what it has counted of each backend, and its admission. (A proxy counts only
    what it sent itself.)"""

    def __init__(self, servers: Sequence[Server], policy: RoutingPolicy, admission: Admission[Job] | None) -> None:
        self.policy = policy
        self.admission = admission
        self.views = {server: Backend(server.backend.spec, status=Status.HEALTHY) for server in servers}
        self.servers = {view: server for server, view in self.views.items()}
        self.backends = tuple(self.views.values())

    @property
    def waiting(self) -> bool:
        return self.admission is not None and self.admission.waiting > 0

    def arrive(self, job: Job, now: float) -> None:
        """A request comes: it is sent, waits, or is shed."""
        admission = self.admission
        if admission is None:
            self._send(job, self.policy.pick(self.backends, job.request, now), now)
            return
        view = None if admission.waiting else self._choose(job, now)
        if view is not None and admission.admit(view, job.request, self.backends, now):
            self._send(job, view, now)
            return
        ticket = admission.ticket(job.request, self.backends)
        ticket.owner = job
        job.shed = admission.enter(ticket, now, _shed) is not None
        self.pump(now)

    def pump(self, now: float) -> None:
        """Something has changed: let go who can, shed who has waited too long."""

        def choose(ticket: Ticket[Job]) -> Backend | None:
            return self._choose(_job(ticket), now)

        def go(ticket: Ticket[Job], view: Backend) -> None:
            self._send(_job(ticket), view, now)

        if self.admission is not None:
            self.admission.pump(self.backends, now, choose, go, _shed)

    def observe(self, moment: Moment, server: Server, job: Job, now: float) -> None:
        """What the proxy sees of a request it sent."""
        view = self.views[server]
        if moment is Moment.FINISHED:
            view.load.leave()
        self.policy.observe(moment, view, job.request, now)
        if self.admission is not None and self.admission.watches:
            self.admission.observe(moment, view, job.request, now)

    def _choose(self, job: Job, now: float) -> Backend | None:
        candidates = [view for view in self.backends if view.has_room]
        return self.policy.pick(candidates, job.request, now) if candidates else None

    def _send(self, job: Job, view: Backend, now: float) -> None:
        server = job.server = self.servers[view]
        job.placed = True
        if server.profile.block_size != BLOCK_TOKENS:
            job.blocks = regrid(job.blocks, BLOCK_TOKENS, server.profile.block_size)
        server.placed += 1
        server.touched = True
        view.load.enter()
        self.observe(Moment.SENT, server, job, now)
        server.engine.submit(job, now)


def _job(ticket: Ticket[Job]) -> Job:
    assert ticket.owner is not None
    return ticket.owner


def _shed(ticket: Ticket[Job], reason: Reason) -> None:
    _job(ticket).shed = True


class Fleet:
    """`servers` behind one or several proxies, each with a policy of its own; requests take them in turns."""

    def __init__(
        self,
        servers: Sequence[Server],
        policies: Sequence[RoutingPolicy],
        *,
        scrape_s: float = 1.0,
        stale_s: float = 0.0,
        by_step: bool = False,
        estimate: Callable[[Arrival], float] = lambda arrival: 1.0,
        admission: AdmissionOptions | None = None,
        who: Callable[[int], Who] = lambda number: NOBODY,
        streams: Callable[[int], bool] = lambda number: True,
    ) -> None:
        """`estimate`: by what factor a prompt's bytes mislead about its tokens. `stale_s`: how old gauges are when the
        policies get them. `by_step`: gauges tell what engines publish (`llmproxy.sim.published`), not how things are.
        `admission`: how requests are held, ordered and shed; needed where a server has a `max_concurrency`, and None
        sends everything on at once. `who` sends a request, by its number. `streams`: whether its answer is streamed; of
        one that is not, proxies see nothing before its end."""
        self.servers = list(servers)
        self._scrape_s = scrape_s
        self._stale_s = stale_s
        self._by_step = by_step
        self._estimate = estimate
        self._who = who
        self._streams = streams
        if admission is None and any(server.backend.spec.max_concurrency is not None for server in self.servers):
            raise ValueError("servers with a max_concurrency need admission")
        self._gates = [
            Gate(self.servers, policy, None if admission is None else Admission(admission, policy))
            for policy in policies
        ]
        self._due: list[tuple[float, int]] = []
        self._turn_of = [inf] * len(self.servers)

    def run(self, trace: Sequence[Arrival], progress: Callable[[int], None] | None = None) -> list[Job]:
        """Replay the whole trace; the jobs in the trace's order, all finished or shed."""
        jobs: list[Job] = []
        due, turn_of = self._due, self._turn_of
        arrivals = iter(enumerate(trace))
        coming = next(arrivals, None)
        next_scrape = 0.0
        sweep_at = inf
        unread: list[tuple[float, list[Gauges]]] = []
        while coming is not None or due or sweep_at < inf:
            arrives_at = coming[1].at_s if coming is not None else inf
            now = min(arrives_at, due[0][0] if due else inf, sweep_at)
            while next_scrape <= now:
                read = [server.gauges(next_scrape, self._by_step) for server in self.servers]
                unread.append((next_scrape + self._stale_s, read))
                next_scrape += self._scrape_s
            while unread and unread[0][0] <= now:
                self._publish(unread.pop(0)[1])
            if coming is not None and arrives_at <= now:
                jobs.append(self._arrive(coming[0], coming[1], now))
                coming = next(arrivals, None)
                if progress is not None:
                    progress(len(jobs))
            elif due and due[0][0] <= now:
                when, index = heappop(due)
                if when != turn_of[index]:
                    continue
                self._advance(self.servers[index], now)
            else:
                self._pump(now)
            waiting = any(gate.waiting for gate in self._gates)
            if not waiting:
                sweep_at = inf
            elif sweep_at <= now or sweep_at == inf:
                sweep_at = now + SWEEP_S
            # Nobody looks at a server between arrivals and scrapes, unless a request gets its first or last token; but
            # where requests wait, one may be sent there at any time.
            self._reschedule(now if waiting else min(coming[1].at_s if coming is not None else inf, next_scrape))
        return jobs

    def _reschedule(self, coast_until: float) -> None:
        """When each server that was touched is to be called next."""
        for index, server in enumerate(self.servers):
            if not server.touched:
                continue
            server.touched = False
            server.engine.coast(coast_until)
            turn = server.engine.due
            self._turn_of[index] = inf if turn is None else turn
            if turn is not None:
                heappush(self._due, (turn, index))

    def _arrive(self, number: int, arrival: Arrival, now: float) -> Job:
        size = max(int(arrival.prompt_tokens * BYTES_PER_TOKEN * self._estimate(arrival)), 1)
        prompt = Prompt(size, arrival.blocks[: arrival.prompt_tokens // BLOCK_TOKENS])
        who = self._who(number)
        request = Request(
            stream=self._streams(number),
            body_bytes=size,
            arrived=now,
            prompt=lambda: prompt,
            identity=who.identity,
            priority=who.priority,
        )
        job = Job(number, arrival, request)
        self._gate(job).arrive(job, now)
        return job

    def _gate(self, job: Job) -> Gate:
        return self._gates[job.number % len(self._gates)]

    def _pump(self, now: float) -> None:
        for gate in self._gates:
            if gate.waiting:
                gate.pump(now)

    def _advance(self, server: Server, now: float) -> None:
        server.touched = True
        told = False
        for job in server.engine.advance(now):
            if job.generated > 1 and job.phase is not Phase.DONE:
                continue
            is_done = job.phase is Phase.DONE
            if not is_done and not job.request.stream:
                continue
            told = True
            gate = self._gate(job)
            if job.generated == 1 or not job.request.stream:
                gate.observe(Moment.FIRST_TOKEN, server, job, now)
            if is_done:
                job.done_at = now
                job.request.tokens = TokenCounts(job.prompt_tokens, job.cached_tokens, job.generated)
                gate.observe(Moment.FINISHED, server, job, now)
        if told:
            self._pump(now)

    def _publish(self, gauges: list[Gauges]) -> None:
        for gate in self._gates:
            for server, seen in zip(self.servers, gauges, strict=True):
                gate.views[server].gauges = seen
