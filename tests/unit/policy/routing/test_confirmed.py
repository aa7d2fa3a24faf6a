"""What an expected prefix hit is worth, by what came of those before it."""

import random

import pytest

from llmproxy.core.backend import Backend, BackendSpec, Gauges
from llmproxy.core.ports import Moment
from llmproxy.core.prompt import BLOCK_BYTES, Prompt, TokenCounts
from llmproxy.core.request import Request
from llmproxy.policy.routing.confirmed import Confirmed
from llmproxy.policy.routing.expected_cost import ExpectedCost, ExpectedCostOptions

TOKENS = 2048
BLOCKS = tuple(range(TOKENS * 4 // BLOCK_BYTES))


def gauges(now, queries, hits):
    return Gauges(at=now, prefix_queries=queries, prefix_hits=hits)


class Engine:
    """A backend that is asked the same prompt again and again, and what the policy thinks of it."""

    def __init__(self, queries=0.0, hits=0.0):
        self.policy = ExpectedCost(ExpectedCostOptions(), random.Random(1))
        self.backend = Backend(BackendSpec(id="one", url="http://127.0.0.1:1"))
        self.now, self.queries, self.hits = 0.0, queries, hits
        self.scrape()

    def scrape(self, queries=0.0, hits=0.0):
        self.queries, self.hits = self.queries + queries, self.hits + hits
        self.now += 1.0
        self.backend.gauges = gauges(self.now, self.queries, self.hits)

    def ask(self, cached):
        """`cached` None: its usage does not tell."""
        sent = Request(stream=True, prompt=lambda: Prompt(TOKENS * 4, BLOCKS))
        self.policy.pick((self.backend,), sent, self.now)
        self.policy.observe(Moment.SENT, self.backend, sent, self.now)
        self.policy.observe(Moment.FIRST_TOKEN, self.backend, sent, self.now)
        sent.tokens = TokenCounts(TOKENS, cached, 1)
        self.policy.observe(Moment.FINISHED, self.backend, sent, self.now)

    def expects(self):
        """Tokens that it thinks are cached of this prompt."""
        asked = Request(prompt=lambda: Prompt(TOKENS * 4, BLOCKS))
        [told] = self.policy.explain((self.backend,), asked, self.now)
        assert told["uncached_tokens"] == pytest.approx(max(TOKENS - told["cached_tokens"], 1.0))
        return told["cached_tokens"]


def test_what_usage_confirms_is_believed():
    engine = Engine()
    for _ in range(50):
        engine.ask(TOKENS)
    assert engine.expects() == TOKENS


def test_what_usage_denies_is_not():
    engine = Engine()
    for _ in range(300):
        engine.ask(TOKENS // 4)
    assert engine.expects() == pytest.approx(TOKENS / 4, rel=0.35)
    for _ in range(300):
        engine.ask(TOKENS)
    assert engine.expects() > 0.9 * TOKENS


def test_one_miss_is_no_reason_to_give_up():
    engine = Engine()
    engine.ask(TOKENS)
    engine.ask(0)
    assert engine.expects() > 0.85 * TOKENS


def test_counters_confirm_where_usage_is_silent():
    engine = Engine(queries=1e6, hits=5e5)
    for _ in range(300):
        engine.ask(None)
        engine.scrape(TOKENS, TOKENS)
    assert engine.expects() > 0.95 * TOKENS


def test_counters_that_stand_still_deny_it():
    """Prefix caching is switched off, or its cache is reset again and again."""
    engine = Engine(queries=1e6, hits=5e5)
    for _ in range(300):
        engine.ask(None)
        engine.scrape(TOKENS, 0.0)
    assert engine.expects() < 0.15 * TOKENS


def test_what_others_find_proves_nothing_against_ours():
    engine = Engine()
    for _ in range(300):
        engine.ask(None)
        engine.scrape(10 * TOKENS, 3 * TOKENS)
    assert engine.expects() > 0.95 * TOKENS


def test_what_others_take_the_place_of_is_seen():
    """They find nothing, and of what ours expect a quarter is still there."""
    engine = Engine()
    for _ in range(300):
        engine.ask(None)
        engine.scrape(10 * TOKENS, TOKENS / 4)
    assert engine.expects() == pytest.approx(TOKENS / 4, rel=0.35)


def test_hits_that_usage_told_of_confirm_no_others():
    confirmed = Confirmed()
    confirmed.read(gauges(0.0, 0.0, 0.0))
    for turn in range(1, 301):
        confirmed.read(gauges(float(turn), turn * 4000.0, turn * 2000.0))
        confirmed.told(2000.0, 2000.0, 2000.0)
        confirmed.untold(2000.0, 2000.0)
    assert confirmed.share == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(("found", "least", "most"), [(1.0, 0.95, 1.0), (0.25, 0.2, 0.4)])
def test_counters_of_blocks_are_understood(found, least, most):
    engine = Engine()
    for _ in range(300):
        engine.ask(None)
        engine.scrape(TOKENS / 16, TOKENS / 16 * found)
    assert least <= engine.expects() / TOKENS <= most


def test_an_engine_without_counters_is_believed():
    engine = Engine()
    engine.backend.gauges = Gauges(at=0.0)
    for _ in range(300):
        engine.ask(None)
    assert engine.expects() == TOKENS


def test_an_engine_that_was_started_again_has_nothing():
    engine = Engine(queries=1e6, hits=5e5)
    engine.ask(None)
    engine.scrape(TOKENS, 0.0)
    assert engine.expects() == TOKENS
    engine.queries = engine.hits = 0.0
    engine.scrape()
    other = Request(stream=True, prompt=lambda: Prompt(400))
    engine.policy.pick((engine.backend,), other, engine.now)
    engine.policy.observe(Moment.SENT, engine.backend, other, engine.now)
    assert engine.expects() == 0.0
    engine.ask(None)
    assert engine.expects() > 0.9 * TOKENS
