"""Each rule decides as its description says, and keeps the promises of a routing policy."""

import random
from collections import Counter

import pytest

from bench.routing.experiments import POLICIES
from llmproxy.core.backend import Backend, BackendSpec, Gauges
from llmproxy.core.ports import Moment
from llmproxy.core.prompt import BLOCK_BYTES, Prompt
from llmproxy.core.request import Request
from llmproxy.sim.contender import Contender


def make(label: str, **options: object):
    known = POLICIES[label]
    return Contender(known.name, {**known.options, **options}).build(random.Random(1))


def fleet(count: int) -> list[Backend]:
    return [Backend(BackendSpec(id=f"b{number}", url=f"http://b{number}")) for number in range(count)]


def asking(*blocks: int, more_bytes: int = 0) -> Request:
    prompt = Prompt(len(blocks) * BLOCK_BYTES + more_bytes, blocks)
    return Request(prompt=lambda: prompt)


def send(policy, backend: Backend, *blocks: int, more_bytes: int = 0) -> Request:
    """As if the policy had picked `backend`: it alone is to be had."""
    request = asking(*blocks, more_bytes=more_bytes)
    assert policy.pick([backend], request, 0.0) is backend
    backend.load.enter()
    policy.observe(Moment.SENT, backend, request, 0.0)
    return request


def end(policy, backend: Backend, request: Request) -> None:
    backend.load.leave()
    policy.observe(Moment.FINISHED, backend, request, 0.0)


def busy(backend: Backend, requests: int) -> None:
    for _ in range(requests):
        backend.load.enter()


@pytest.mark.parametrize("label", POLICIES)
class TestEach:
    def test_spreads_and_repeats_with_the_seed(self, label):
        def run():
            backends, policy, chosen = fleet(4), make(label), []
            for number in range(200):
                request = asking(number, 1000 + number)
                backend = policy.pick(backends, request, 0.0)
                backend.load.enter()
                policy.observe(Moment.SENT, backend, request, 0.0)
                chosen.append(backend.id)
            return chosen

        counts = Counter(run())
        assert run() == run()
        assert all(25 < count < 90 for count in counts.values())
        assert len(counts) == 4

    def test_ties_do_not_depend_on_where_backends_lie_in_memory(self, label):
        def run():
            backends, policy = fleet(8), make(label)
            for backend in backends:
                end(policy, backend, send(policy, backend, 1, 2))
            return backends, [policy.pick(backends, asking(1, 2), 0.0).id for _ in range(20)]

        runs = [run() for _ in range(10)]
        assert all(picks == runs[0][1] for _, picks in runs)

    def test_takes_leavers_newcomers_and_requests_without_a_prompt(self, label):
        backends, policy, dice = fleet(5), make(label), random.Random(3)
        for number in range(200):
            request = asking(number % 7, number) if number % 3 else Request()
            candidates = dice.sample(backends, dice.randint(1, 5))
            backend = policy.pick(candidates, request, 0.0)
            assert backend in candidates
            policy.observe(Moment.SENT, backend, request, 0.0)
            for moment in dice.choice([(Moment.FAILED,), (Moment.FIRST_TOKEN, Moment.FINISHED)]):
                policy.observe(moment, backend, request, 0.0)
            if number % 10 == 0:
                gone = backends.pop(0)
                policy.forget(gone)
                backends.append(Backend(gone.spec))


class TestSGLang:
    def test_follows_more_than_half_a_prompt(self):
        policy, (one, two) = make("sglang"), fleet(2)
        send(policy, one, 1, 2, 3, 4)
        send(policy, two, 9)
        assert policy.pick([one, two], asking(1, 2, 5), 0.0) is one
        # Half is not more than half: now the smaller tree wins.
        assert policy.pick([one, two], asking(1, 2, 5, 6), 0.0) is two

    def test_load_comes_first_when_it_is_far_apart(self):
        policy, (one, two) = make("sglang"), fleet(2)
        send(policy, one, 1, 2)
        busy(one, 31)
        assert policy.pick([one, two], asking(1, 2), 0.0) is one
        busy(one, 1)
        assert policy.pick([one, two], asking(1, 2), 0.0) is two

    def test_smg_sends_the_unmatched_to_the_least_loaded(self):
        policy, (one, two) = make("smg"), fleet(2)
        send(policy, one, 1, 2, 3)
        busy(two, 3)
        assert policy.pick([one, two], asking(7), 0.0) is one
        assert policy.pick([one, two], asking(1, 5, 6), 0.0) is one


class TestLlmD:
    def test_weighs_queue_cache_and_prefix(self):
        policy, (one, two) = make("llm_d"), fleet(2)
        send(policy, one, 1, 2)
        one.gauges = Gauges(0.0, waiting=5.0, kv_usage=0.0)
        two.gauges = Gauges(0.0, waiting=0.0, kv_usage=0.0)
        # 3 for the prefix against 2 for the queue; half a prefix is worth 1.5.
        assert policy.pick([one, two], asking(1, 2), 0.0) is one
        assert policy.pick([one, two], asking(1, 3), 0.0) is two
        two.gauges = Gauges(0.0, waiting=0.0, kv_usage=0.3)
        assert policy.pick([one, two], asking(1, 3), 0.0) is one

    def test_the_queue_counts_only_relative_to_the_others(self):
        policy, (one, two) = make("llm_d"), fleet(2)
        one.gauges = two.gauges = Gauges(0.0, waiting=40.0, kv_usage=0.5)
        send(policy, two, 1)
        assert policy.pick([one, two], asking(1), 0.0) is two

    def test_forgets_what_the_cache_has_no_room_for(self):
        policy, (one, two) = make("llm_d"), fleet(2)
        one.gauges = two.gauges = Gauges(0.0, waiting=0.0, kv_usage=0.0, kv_tokens=2 * BLOCK_BYTES // 4)
        send(policy, one, 1, 2)
        send(policy, one, 8, 9)
        picks = {policy.pick([one, two], asking(1, 2), 0.0).id for _ in range(40)}
        assert picks == {"b0", "b1"}

    def test_may_look_at_the_beginning_only(self):
        policy, (one, two) = make("llm_d", look_tokens=1024), fleet(2)
        one.gauges = two.gauges = Gauges(0.0, waiting=0.0, kv_usage=0.0)
        send(policy, one, 1, 2, 3, 4)
        send(policy, two, 1, 2)
        picks = {policy.pick([one, two], asking(1, 2, 3, 4), 0.0).id for _ in range(40)}
        assert picks == {"b0", "b1"}


class TestAIBrix:
    def test_longest_match_that_is_not_overloaded(self):
        policy, backends = make("aibrix"), fleet(8)
        send(policy, backends[0], 1, 2, 3)
        send(policy, backends[1], 1, 2)
        assert policy.pick(backends, asking(1, 2, 3), 0.0) is backends[0]
        busy(backends[0], 11)
        assert policy.pick(backends, asking(1, 2, 3), 0.0) is backends[1]

    def test_imbalance_goes_before_any_match(self):
        policy, (one, two) = make("aibrix"), fleet(2)
        send(policy, one, 1)
        busy(one, 15)
        assert policy.pick([one, two], asking(1), 0.0) is one
        busy(one, 1)
        assert policy.pick([one, two], asking(1), 0.0) is two

    def test_the_table_is_one_for_all_and_bounded(self):
        policy, (one, two) = make("aibrix", table_bytes=2 * BLOCK_BYTES), fleet(2)
        send(policy, one, 1)
        send(policy, two, 2, 3)
        busy(two, 1)
        busy(one, 2)
        assert policy.pick([one, two], asking(1), 0.0) is two


class TestLMetric:
    def test_multiplies_new_tokens_and_batch(self):
        policy, (one, two) = make("lmetric"), fleet(2)
        end(policy, one, send(policy, one, 1, 2))
        # 512 new tokens times 3 against 1,536 times 1: equal; one more in the batch decides.
        busy(one, 2)
        assert {policy.pick([one, two], asking(1, 2, 3), 0.0).id for _ in range(40)} == {"b0", "b1"}
        busy(one, 1)
        assert policy.pick([one, two], asking(1, 2, 3), 0.0) is two

    def test_queued_tokens_end_with_the_first_token(self):
        policy, (one, two) = make("lmetric"), fleet(2)
        request = send(policy, one, 1, 2, 3, 4)
        busy(two, 1)
        assert policy.pick([one, two], asking(9), 0.0) is two
        policy.observe(Moment.FIRST_TOKEN, one, request, 0.0)
        busy(two, 1)
        assert policy.pick([one, two], asking(9), 0.0) is one


class TestDynamo:
    def test_adds_prefill_and_active_blocks(self):
        policy, (one, two) = make("dynamo"), fleet(2)
        first = send(policy, one, 1, 2, 3)
        policy.observe(Moment.FIRST_TOKEN, one, first, 0.0)
        # One has three active blocks, all of them this prompt's: 0 + 3 there, 3 + 3 elsewhere.
        assert {policy.pick([one, two], asking(1, 2, 3), 0.0).id for _ in range(40)} == {"b0"}
        # Another prompt: 2 + 5 against 2 + 2.
        assert policy.pick([one, two], asking(8, 9), 0.0) is two
        end(policy, one, first)
        assert {policy.pick([one, two], asking(8, 9), 0.0).id for _ in range(40)} == {"b0", "b1"}

    def test_prompts_not_yet_computed_weigh_twice(self):
        policy, (one, two) = make("dynamo"), fleet(2)
        waiting = send(policy, one, 1, 2)
        done = send(policy, two, 3, 4, 5)
        policy.observe(Moment.FIRST_TOKEN, two, done, 0.0)
        assert policy.pick([one, two], asking(9), 0.0) is two
        policy.observe(Moment.FIRST_TOKEN, one, waiting, 0.0)
        assert policy.pick([one, two], asking(9), 0.0) is one


class TestBoundedHashing:
    def test_a_chat_keeps_its_backend_and_chats_with_one_root_part(self):
        policy, backends = make("chwbl"), fleet(8)
        turns = [policy.pick(backends, asking(0, 7, *range(100, 100 + turn)), 0.0) for turn in range(10)]
        assert len(set(turns)) == 1
        chats = Counter(policy.pick(backends, asking(0, chat), 0.0).id for chat in range(100, 900))
        assert len(chats) == 8
        assert max(chats.values()) < 2 * min(chats.values())

    def test_overflows_to_the_next_on_the_ring_and_comes_back(self):
        policy, backends = make("chwbl"), fleet(4)
        home = policy.pick(backends, asking(0, 1), 0.0)
        busy(home, 2)
        # Five quarters of three in four is one each: home has no room.
        spilled = {policy.pick(backends, asking(0, 1), 0.0).id for _ in range(20)}
        assert len(spilled) == 1
        assert spilled != {home.id}
        home.load.leave()
        home.load.leave()
        assert policy.pick(backends, asking(0, 1), 0.0) is home
