"""Caches and those who share them: two proxies, whose expectations are set right by what engines say; and prompts that
all begin alike, which are no reason to send them all to one backend."""

import random
from collections.abc import Sequence
from statistics import fmean

import pytest

from llmproxy.core.backend import Backend
from llmproxy.core.ports import Moment
from llmproxy.core.prompt import TokenCounts
from llmproxy.core.request import Request
from llmproxy.policy.routing.expected_cost import ExpectedCost, ExpectedCostOptions
from llmproxy.policy.routing.registry import build
from llmproxy.sim.fleet import Fleet, Server
from llmproxy.sim.profile import Profile
from llmproxy.sim.score import ttft_s
from llmproxy.sim.trace import BLOCK_TOKENS, Arrival

PROFILE = Profile(kv_blocks=200)
SECONDS = 200


class Watched(ExpectedCost):
    """Adds up what it expected to be cached, with and without the correction, and what was."""

    def __init__(self, *, tells: bool) -> None:
        super().__init__(ExpectedCostOptions(), random.Random(1))
        self.tells = tells
        self.indexed = self.expected = self.cached = 0.0
        self._asked: dict[Request, tuple[float, float]] = {}

    def pick(self, candidates: Sequence[Backend], request: Request, now: float) -> Backend:
        chosen = super().pick(candidates, request, now)
        [told] = self.explain((chosen,), request, now)
        hits = self._index.match(request.prompt.blocks).get(self._books[chosen].bit, 0)
        self._asked[request] = hits * BLOCK_TOKENS, told["cached_tokens"]
        return chosen

    def observe(self, moment: Moment, backend: Backend, request: Request, now: float) -> None:
        counts = request.tokens
        if moment is Moment.FINISHED and counts is not None:
            indexed, expected = self._asked.pop(request)
            self.indexed += indexed
            self.expected += expected
            self.cached += counts.cached or 0
            if not self.tells:
                request.tokens = TokenCounts(counts.prompt, None, counts.completion)
        super().observe(moment, backend, request, now)


def chats_and_others() -> list[Arrival]:
    """In turns (the fleet deals them out to the two proxies so): the next turn of a chat, and a prompt never seen
    before, so that of every chat most has been taken out of the caches when it goes on."""
    dice = random.Random(5)
    found, fresh = [], 1_000_000
    lengths = [4] * 60
    for number in range(SECONDS * 4):
        at_s = number / 4
        if number % 2:
            fresh += 100
            found.append(Arrival(at_s, 12 * BLOCK_TOKENS, 5, tuple(range(fresh, fresh + 12))))
        else:
            chat = dice.randrange(len(lengths))
            blocks = tuple(range(chat * 1000, chat * 1000 + lengths[chat]))
            lengths[chat] = min(lengths[chat] + 1, 12)
            found.append(Arrival(at_s, len(blocks) * BLOCK_TOKENS, 5, blocks))
    return found


@pytest.mark.parametrize("tells", [True, False], ids=["usage", "metrics"])
def test_what_is_expected_of_shared_caches_comes_true(tells: bool) -> None:
    ours, theirs = Watched(tells=tells), Watched(tells=tells)
    Fleet([Server(f"s{number}", PROFILE) for number in range(3)], [ours, theirs]).run(chats_and_others())
    # The index knows nothing of the other proxy's prompts, and expects too much.
    assert ours.indexed > 1.8 * ours.cached > 0
    assert ours.expected == pytest.approx(ours.cached, rel=0.35)


def alike_at_first(rate: float) -> list[Arrival]:
    """Every chat of an application begins with the same 4,096 tokens."""
    dice, at_s, found = random.Random(7), 0.0, []
    for number in range(600):
        at_s += dice.expovariate(rate)
        own = tuple(range(1000 + 10 * number, 1002 + 10 * number))
        found.append(Arrival(at_s, 10 * BLOCK_TOKENS, dice.randint(50, 300), (*range(8), *own)))
    return found


def replayed(name: str, came: list[Arrival]) -> tuple[list[float], float]:
    """Each of eight backends' share of the requests, and the mean TTFT."""
    servers = [Server(f"s{number}", Profile()) for number in range(8)]
    jobs = Fleet(servers, [build(name, {}, random.Random(1))]).run(came)
    return [server.placed / len(jobs) for server in servers], fmean(ttft_s(job) for job in jobs)


@pytest.mark.parametrize(("rate", "least", "most"), [(2.0, 0.0, 0.4), (20.0, 0.08, 0.18)])
def test_a_root_that_all_share_herds_nobody(rate: float, least: float, most: float) -> None:
    """With little to do a few warm caches serve all as well as eight; with more to do, all are used alike."""
    came = alike_at_first(rate)
    shares, ttft_mean_s = replayed("expected_cost", came)
    assert min(shares) >= least, shares
    assert max(shares) <= most, shares
    assert ttft_mean_s < 1.15 * replayed("least_connections", came)[1]
