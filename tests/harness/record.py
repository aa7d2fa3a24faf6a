"""What a proxy's routing decided, on what, and when: to be decided again."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from llmproxy.core.backend import Backend
from llmproxy.core.ports import Moment, RoutingPolicy
from llmproxy.core.prompt import Prompt, TokenCounts
from llmproxy.core.request import Request


@dataclass(frozen=True)
class Picked:
    """`candidates` are their ids, in order, with their requests in flight. `chosen` and `reason` are the decision."""

    request: int
    """Its number, in the order of first picks."""
    now: float
    model: str | None
    prompt_bytes: int
    blocks: tuple[int, ...]
    stream: bool
    candidates: tuple[tuple[str, int], ...]
    chosen: str
    reason: str


@dataclass(frozen=True)
class Observed:
    """`tokens`: prompt, cached and generated, as far as the engine had told."""

    request: int
    now: float
    moment: Moment
    backend: str
    tokens: tuple[int | None, int | None, int | None] | None


class Recorder:
    """Stands before a pool's policy: `pool.set_routing(Recorder(policy))`. `events`: what it was asked and told, in
    order."""

    def __init__(self, policy: RoutingPolicy) -> None:
        self._policy = policy
        self.events: list[Picked | Observed] = []
        self._numbers: dict[Request, int] = {}

    @property
    def picks(self) -> list[Picked]:
        return [event for event in self.events if isinstance(event, Picked)]

    def pick(self, candidates: Sequence[Backend], request: Request, now: float) -> Backend:
        loads = tuple((backend.id, backend.load.in_flight) for backend in candidates)
        chosen = self._policy.pick(candidates, request, now)
        prompt = request.prompt
        self.events.append(
            Picked(
                self._numbers.setdefault(request, len(self._numbers)),
                now,
                request.model,
                prompt.size,
                tuple(prompt.blocks),
                request.stream,
                loads,
                chosen.id,
                request.reason,
            )
        )
        return chosen

    def observe(self, moment: Moment, backend: Backend, request: Request, now: float) -> None:
        told = request.tokens
        tokens = None if told is None else (told.prompt, told.cached, told.completion)
        self.events.append(Observed(self._numbers[request], now, moment, backend.id, tokens))
        self._policy.observe(moment, backend, request, now)

    def forget(self, backend: Backend) -> None:
        self._policy.forget(backend)


def decided_again(events: Sequence[Picked | Observed], policy: RoutingPolicy, specs: Any) -> list[tuple[str, str]]:
    """What `policy` chooses, and why, when it is asked and told the same. The requests in flight are counted anew,
    from the moments alone, and must come out as they were recorded."""
    backends = {spec.id: Backend(spec) for spec in specs}
    requests: dict[int, Request] = {}
    held: dict[int, Backend] = {}
    found = []
    for event in events:
        if isinstance(event, Picked):
            counted = tuple((id, backends[id].load.in_flight) for id, _ in event.candidates)
            assert counted == event.candidates, f"{event.request}: {counted}"
            prompt = partial(Prompt, event.prompt_bytes, event.blocks)
            request = Request(model=event.model, stream=event.stream, prompt=prompt)
            requests[event.request] = request
            chosen = policy.pick([backends[id] for id, _ in event.candidates], request, event.now)
            found.append((chosen.id, request.reason))
            # What happened then, happened where it was sent: were this another place, it would show here.
            held[event.request] = backends[event.chosen]
            backends[event.chosen].load.enter()
        else:
            request = requests[event.request]
            request.tokens = None if event.tokens is None else TokenCounts(*event.tokens)
            policy.observe(event.moment, backends[event.backend], request, event.now)
            if event.moment in (Moment.FINISHED, Moment.FAILED):
                held.pop(event.request).load.leave()
    return found
