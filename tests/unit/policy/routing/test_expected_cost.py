"""The formula, term by term, on paper and in code."""

import random

import pytest

from llmproxy.core.backend import Backend, BackendSpec, Gauges
from llmproxy.core.ports import Moment
from llmproxy.core.prompt import BLOCK_BYTES, Prompt, TokenCounts
from llmproxy.core.request import Request
from llmproxy.policy.routing.expected_cost import ExpectedCost, ExpectedCostOptions

R0 = 1000.0


def fleet(count):
    return tuple(Backend(BackendSpec(id=f"b{number}", url="http://127.0.0.1:1")) for number in range(count))


def policy(**options):
    return ExpectedCost(ExpectedCostOptions(prefill_tokens_per_s=R0, **options), random.Random(1))


def request(tokens, blocks=(), **fields):
    prompt = Prompt(tokens * 4, blocks)
    return Request(prompt=lambda: prompt, **{"stream": True, **fields})


def place(made, backend, tokens, now, blocks=()):
    """A request that is sent to `backend`, whatever the policy thinks."""
    sent = request(tokens, blocks)
    assert made.pick((backend,), sent, now) is backend
    backend.load.enter()
    made.observe(Moment.SENT, backend, sent, now)
    return sent


def cost(made, backend, asked, now=0.0):
    [told] = made.explain((backend,), asked, now)
    return told["cost"]


def test_idle_backends_cost_their_own_prompt_and_one_place():
    made, (one,) = policy(), fleet(1)
    assert cost(made, one, request(2000)) == pytest.approx(2 * 2000 / R0 + 0.02)


def test_what_awaits_its_first_token_counts_and_all_in_flight_are_delayed():
    made, (one,) = policy(), fleet(1)
    sent = place(made, one, 4000, 0.0)
    assert cost(made, one, request(2000)) == pytest.approx((4000 + 2 * 2000) * 1.1 / R0 + 0.02 * 2)
    made.observe(Moment.FIRST_TOKEN, one, sent, 0.0)
    speed = (4000 + 3 * R0) / 3
    assert cost(made, one, request(2000)) == pytest.approx(2 * 2000 * 1.1 / speed + 0.02 * 2 * R0 / speed)
    one.load.leave()
    made.observe(Moment.FINISHED, one, sent, 0.0)
    assert cost(made, one, request(2000)) == pytest.approx(2 * 2000 / speed + 0.02 * R0 / speed)


def test_the_choice_is_among_the_least_of_the_costs_that_are_told():
    made, candidates, dice = policy(), fleet(6), random.Random(5)
    for number in range(300):
        asked = request(dice.randint(1, 9000), [number % 9, number % 4])
        costs = [told["cost"] for told in made.explain(candidates, asked, float(number))]
        chosen = made.pick(candidates, asked, float(number))
        assert costs[candidates.index(chosen)] <= min(costs) * 1.05 + 1e-9
        chosen.load.enter()
        made.observe(Moment.SENT, chosen, asked, float(number))
        if dice.random() < 0.7:
            made.observe(Moment.FIRST_TOKEN, chosen, asked, number + dice.random())


def test_the_untried_are_thought_of_as_no_slower_than_the_fastest():
    made, (one, other) = policy(), fleet(2)
    sent = place(made, one, 9000, 0.0)
    made.observe(Moment.FIRST_TOKEN, one, sent, 0.1)
    one.load.leave()
    made.observe(Moment.FINISHED, one, sent, 0.1)
    here, there = made.explain((one, other), request(1000), 1.0)
    assert here["prefill_tokens_per_s"] == there["prefill_tokens_per_s"] > R0
    made.forget(one)
    assert made.explain((other,), request(1000), 1.0)[0]["uncached_tokens"] == 1000


def test_the_weights_are_options():
    made, (one,) = policy(own=3.0, delay=1.0, crowd=0.5), fleet(1)
    place(made, one, 4000, 0.0)
    assert cost(made, one, request(2000)) == pytest.approx((4000 + 3 * 2000) * 2 / R0 + 0.5 * 2)


def test_speed_is_learned_over_busy_time_only():
    made, (one,) = policy(), fleet(1)
    sent = place(made, one, 6000, 10.0)
    made.observe(Moment.FIRST_TOKEN, one, sent, 13.0)
    idle = made.explain((one,), request(1), 500.0)[0]["prefill_tokens_per_s"]
    kept = 0.5 ** (3 / 60)
    assert idle == pytest.approx((6000 + 3 * R0) / (3.0 + 3.0), rel=1e-6)
    sent = place(made, one, 3000, 500.0)
    made.observe(Moment.FIRST_TOKEN, one, sent, 503.0)
    speed = made.explain((one,), request(1), 503.0)[0]["prefill_tokens_per_s"]
    assert speed == pytest.approx((6000 * kept + 3000 + 3 * R0) / (3.0 * kept + 3.0 + 3.0))


def test_time_spent_on_a_prompt_counts_when_it_is_done():
    made, (one,) = policy(), fleet(1)
    sent = place(made, one, 6000, 0.0)
    # Three of the six seconds that were expected: no reason to think it slow, nor to think it fast.
    place(made, one, 500, 3.0)
    assert made.explain((one,), request(1), 3.0)[0]["prefill_tokens_per_s"] == R0
    made.observe(Moment.FIRST_TOKEN, one, sent, 3.0)
    speed = made.explain((one,), request(1), 3.0)[0]["prefill_tokens_per_s"]
    assert speed == pytest.approx((6000 + 3 * R0) / 6.0)


def test_who_is_long_overdue_is_slow():
    made, (one,) = policy(), fleet(1)
    place(made, one, 1000, 0.0)
    place(made, one, 1000, 10.0)
    # Two seconds' work after ten seconds.
    speed = made.explain((one,), request(1), 10.0)[0]["prefill_tokens_per_s"]
    assert speed == pytest.approx(3 * R0 / (3.0 + 8.0))


@pytest.mark.parametrize("moment", [Moment.FAILED, Moment.FINISHED])
def test_an_attempt_that_ends_without_a_token_waits_no_more(moment):
    made, (one,) = policy(), fleet(1)
    sent = place(made, one, 4000, 0.0)
    made.observe(moment, one, sent, 0.0)
    told = made.explain((one,), request(1), 0.0)[0]
    assert told["pending_tokens"] == 0.0
    # What is told of it later, or twice, changes nothing.
    made.observe(Moment.FINISHED, one, sent, 0.0)
    assert made.explain((one,), request(1), 0.0) == [told]


def test_a_failure_before_it_was_sent_changes_nothing():
    made, (one,) = policy(), fleet(1)
    asked = request(4000)
    before = cost(made, one, request(100))
    made.pick((one,), asked, 0.0)
    made.observe(Moment.FAILED, one, asked, 0.0)
    assert cost(made, one, request(100)) == before


def test_a_cached_prefix_is_worth_its_tokens_and_no_more():
    made, (one, other) = policy(), fleet(2)
    blocks = [1, 2, 3, 4]
    sent = place(made, one, 4 * 512, 0.0, blocks)
    one.load.leave()
    made.observe(Moment.FIRST_TOKEN, one, sent, 0.0)
    made.observe(Moment.FINISHED, one, sent, 0.0)
    again = request(5 * 512, [*blocks, 5])
    here, there = made.explain((one, other), again, 0.0)
    assert (here["cached_tokens"], there["cached_tokens"]) == (4 * 512, 0)
    assert made.pick((other, one), again, 0.0) is one
    assert again.reason == "prefix"
    # Enough waits there: the other one computes it all sooner.
    for _ in range(10):
        place(made, one, 5000, 0.0)
    assert made.pick((other, one), request(5 * 512, [*blocks, 5]), 0.0) is other


def test_only_what_is_not_cached_has_to_be_waited_for():
    made, (one,) = policy(), fleet(1)
    place(made, one, 4 * 512, 0.0, [1, 2, 3, 4])
    place(made, one, 5 * 512, 0.0, [1, 2, 3, 4, 5])
    assert made.explain((one,), request(1), 0.0)[0]["pending_tokens"] == 5 * 512


def test_where_there_is_nothing_to_compute_the_crowd_decides():
    made, (one, other) = policy(delay=0.0), fleet(2)
    one.load.enter()
    assert {made.pick((one, other), request(1), 0.0).id for _ in range(50)} == {"b1"}


def test_the_index_keeps_no_more_than_the_cache_holds():
    made, (one,) = policy(), fleet(1)
    one.gauges = Gauges(at=0.0, kv_tokens=4 * BLOCK_BYTES // 4)
    place(made, one, 4 * 512, 0.0, [1, 2, 3, 4])
    place(made, one, 2 * 512, 0.0, [11, 12])
    # The first prompt's last blocks went first.
    assert made.explain((one,), request(2048, [1, 2, 3, 4]), 0.0)[0]["cached_tokens"] == 2 * 512


def test_equals_are_chosen_at_random():
    made, candidates = policy(), fleet(4)
    chosen = {made.pick(candidates, request(10), 0.0).id for _ in range(200)}
    assert chosen == {"b0", "b1", "b2", "b3"}


@pytest.mark.parametrize(("waiting", "chosen"), [(150, {"b0", "b1"}), (250, {"b1"})])
def test_so_are_near_equals(waiting, chosen):
    """A twentieth of 4,000 tokens is 200."""
    made, candidates = policy(delay=0.0, crowd=0.0), fleet(2)
    place(made, candidates[0], waiting, 0.0)
    assert {made.pick(candidates, request(2000), 0.0).id for _ in range(100)} == chosen


def test_near_is_an_option():
    made, candidates = policy(delay=0.0, crowd=0.0, alike=0.0), fleet(2)
    place(made, candidates[0], 1, 0.0)
    assert {made.pick(candidates, request(2000), 0.0).id for _ in range(100)} == {"b1"}


def test_a_slow_starting_backend_costs_more():
    made, (one, other) = policy(), fleet(2)
    one.weight = 0.1
    assert all(made.pick((one, other), request(1000), 0.0) is other for _ in range(50))


def test_bytes_become_tokens_by_what_the_engine_reports():
    made, (one,) = policy(), fleet(1)
    for _ in range(200):
        sent = place(made, one, 10_000, 0.0)
        sent.tokens = TokenCounts(prompt=20_000, cached=0, completion=5)
        one.load.leave()
        made.observe(Moment.FINISHED, one, sent, 0.0)
    assert made.explain((one,), request(1000), 0.0)[0]["uncached_tokens"] == pytest.approx(2000, rel=0.01)


def test_forgotten_with_the_backend():
    made, (one, other) = policy(), fleet(2)
    place(made, one, 4000, 0.0, [1, 2])
    made.forget(one)
    other.load.enter()
    told = made.explain((one, other), request(1024, [1, 2]), 0.0)
    one.load.leave()
    assert [terms["cached_tokens"] for terms in told] == [0, 0]
    assert [terms["pending_tokens"] for terms in told] == [0, 0]


def test_the_speed_it_has_seen_is_told_without_what_it_believed_before():
    made, (one, other) = policy(), fleet(2)
    assert made.seen_tokens_per_s(one) is None
    sent = place(made, one, 500, 0.0)
    made.observe(Moment.FIRST_TOKEN, one, sent, 2.0)
    assert made.seen_tokens_per_s(one) is None
    sent = place(made, one, 1500, 2.0)
    made.observe(Moment.FIRST_TOKEN, one, sent, 12.0)
    kept = 0.5 ** (10 / 60)
    assert made.seen_tokens_per_s(one) == pytest.approx((500 * kept + 1500) / (2 * kept + 10))
    assert made.seen_tokens_per_s(other) is None
    made.forget(one)
    assert made.seen_tokens_per_s(one) is None
