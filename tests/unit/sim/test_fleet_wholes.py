"""Answers that are not streamed, among streams: `expected_cost` knows as much as if it saw all of them begin.

The fleet is led by a policy that sees every first token. Two others hear of the same requests at the same backends, of
half of them only the end: one that is told which answers are streamed, and one that is told all are, so that it takes
the end of the others for their first token.
"""

import random
from collections.abc import Sequence
from statistics import fmean

import pytest

from llmproxy.core.backend import Backend
from llmproxy.core.ports import Moment
from llmproxy.core.request import Request
from llmproxy.policy.routing.expected_cost import ExpectedCost, ExpectedCostOptions
from llmproxy.sim.fleet import Fleet, Server
from llmproxy.sim.profile import Profile
from llmproxy.sim.trace import Arrival

SECONDS = 120.0
ALIKE = 1.05


def expected_cost(seed: int = 1) -> ExpectedCost:
    return ExpectedCost(ExpectedCostOptions(), random.Random(seed))


class Follower:
    """A policy that hears of what the leader placed, and is asked whether it would have done so."""

    def __init__(self, *, told: bool) -> None:
        self.policy = expected_cost()
        self._told = told
        self._requests: dict[Request, Request] = {}
        self.agreed: list[bool] = []
        self.regrets: list[float] = []
        """By how much its own choice costs more than the best one, by what the leader knows."""

    def placed(
        self, backend: Backend, candidates: Sequence[Backend], request: Request, now: float, true: Sequence[float]
    ) -> None:
        streamed = self._told is False or request.stream
        own = self._requests[request] = Request(prompt=lambda: request.prompt, stream=streamed)
        costs = [terms["cost"] for terms in self.policy.explain(candidates, own, now)]
        self.agreed.append(costs[list(candidates).index(backend)] <= min(costs) * ALIKE)
        self.regrets.append(true[costs.index(min(costs))] / min(true) - 1)
        # The note is made for where it really went.
        self.policy.pick([backend], own, now)

    def observe(self, moment: Moment, backend: Backend, request: Request, now: float) -> None:
        own = self._requests[request]
        own.tokens = request.tokens
        self.policy.observe(moment, backend, own, now)


class Leader:
    """Sees all first tokens, and tells the followers what a proxy would see."""

    def __init__(self, followers: Sequence[Follower], whole: set[Request]) -> None:
        self.policy = expected_cost()
        self.followers = followers
        self.whole = whole
        self.seen: dict[str, list[float]] = {}

    def pick(self, candidates: Sequence[Backend], request: Request, now: float) -> Backend:
        costs = [terms["cost"] for terms in self.policy.explain(candidates, request, now)]
        chosen = self.policy.pick(candidates, request, now)
        # The fleet lets this one see the first token of all; the followers are told which are streams.
        is_stream, request.stream = request.stream, request not in self.whole
        for follower in self.followers:
            follower.placed(chosen, candidates, request, now, costs)
        request.stream = is_stream
        return chosen

    def observe(self, moment: Moment, backend: Backend, request: Request, now: float) -> None:
        self.policy.observe(moment, backend, request, now)
        for follower in self.followers:
            if moment is Moment.FIRST_TOKEN and request in self.whole:
                continue
            follower.observe(moment, backend, request, now)

    def forget(self, backend: Backend) -> None:
        raise AssertionError("nobody leaves")


class Drawn(set[Request]):
    """Half of all requests, drawn when first asked."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._dice = random.Random(seed)
        self._asked: set[Request] = set()

    def __contains__(self, request: object) -> bool:
        assert isinstance(request, Request)
        if request not in self._asked:
            self._asked.add(request)
            if self._dice.random() < 0.5:
                self.add(request)
        return super().__contains__(request)


def trace(seed: int, rate: float) -> list[Arrival]:
    dice, at, found = random.Random(seed), 0.0, []
    while (at := at + dice.expovariate(rate)) < SECONDS:
        chat = dice.randrange(40)
        blocks = tuple(range(chat * 100, chat * 100 + dice.randrange(3)))
        found.append(Arrival(at, 512 * len(blocks) + dice.randint(200, 4000), dice.randint(100, 600), blocks))
    return found


@pytest.fixture(scope="module")
def run() -> tuple[Leader, Follower, Follower]:
    knows, takes_for_streams = Follower(told=True), Follower(told=False)
    leader = Leader((knows, takes_for_streams), Drawn(2))
    Fleet([Server(f"s{number}", Profile()) for number in range(4)], [leader]).run(trace(1, 10.0))
    return leader, knows, takes_for_streams


def learned(policy: ExpectedCost) -> dict[str, float]:
    return {backend.id: policy.seen_tokens_per_s(backend) or 0.0 for backend in policy._books}


def test_the_speed_is_learned_as_from_streams_alone(run: tuple[Leader, Follower, Follower]) -> None:
    leader, knows, takes_for_streams = run
    right = learned(leader.policy)
    assert len(right) == 4
    for name, speed in learned(knows.policy).items():
        assert speed == pytest.approx(right[name], rel=0.15)
    for name, speed in learned(takes_for_streams.policy).items():
        assert speed < 0.6 * right[name]


def test_the_picks_are_those_of_one_that_sees_all(run: tuple[Leader, Follower, Follower]) -> None:
    _, knows, takes_for_streams = run
    assert len(knows.agreed) > 1000
    assert fmean(knows.agreed) > 0.75
    assert fmean(takes_for_streams.agreed) < 0.5
    assert fmean(knows.regrets) < 0.06
    assert fmean(takes_for_streams.regrets) > 0.15
