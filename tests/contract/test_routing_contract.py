"""What every routing policy of the registry promises."""

import random
from collections import Counter

import pytest

from llmproxy.core.backend import Backend, BackendSpec
from llmproxy.core.ports import Moment
from llmproxy.core.request import Request
from llmproxy.policy.routing import registry


def backends(count, weight=1.0):
    return [Backend(BackendSpec(id=f"b{i}", url=f"http://10.0.0.{i}:8000", weight=weight)) for i in range(count)]


def requests(count):
    """All different, with everything that some policy may look at."""
    return [
        Request(
            id=f"r{i}",
            client_ip=f"10.{i >> 16 & 255}.{i >> 8 & 255}.{i & 255}",
            headers=((b"X-Session-ID", b"s%d" % i),),
            field={"user": f"u{i}"}.get,
        )
        for i in range(count)
    ]


@pytest.fixture(params=sorted(registry.POLICIES))
def build(request):
    return lambda seed=1: registry.build(request.param, {}, random.Random(seed))


def test_a_single_candidate_is_the_answer(build):
    [only] = candidates = backends(1)
    policy = build()
    for i, request in enumerate(requests(50)):
        assert policy.pick(candidates, request, float(i)) is only
        only.load.enter()


@pytest.mark.parametrize("count", [2, 3, 64])
def test_picks_one_of_the_candidates(build, count):
    candidates, policy = backends(count), build()
    for request in requests(200):
        chosen = policy.pick(candidates, request, 0.0)
        assert any(chosen is backend for backend in candidates)
        chosen.load.enter()


def test_takes_any_sequence_and_leaves_it_as_it_was(build):
    candidates, policy = backends(5), build()
    as_tuple = tuple(candidates)
    for request in requests(20):
        policy.pick(as_tuple, request, 0.0)
        policy.pick(candidates, request, 0.0)
    assert candidates == list(as_tuple)


def test_the_same_seed_gives_the_same_answers(build):
    def run():
        candidates, policy, chosen = backends(4), build(seed=3), []
        for request in requests(100):
            backend = policy.pick(candidates, request, 0.0)
            backend.load.enter()
            chosen.append(backend.id)
        return chosen

    assert run() == run()


def test_membership_may_change_between_picks(build):
    everyone, policy, dice = backends(8), build(), random.Random(5)
    for request in requests(400):
        candidates = dice.sample(everyone, dice.randint(1, 8))
        assert policy.pick(candidates, request, 0.0) in candidates
        if dice.random() < 0.1:
            gone = everyone.pop(dice.randrange(8))
            policy.forget(gone)
            everyone.append(Backend(gone.spec))


def test_forgetting_someone_never_seen_is_fine(build):
    build().forget(backends(1)[0])


def test_is_told_of_every_moment(build):
    policy, [backend], [request] = build(), backends(1), requests(1)
    for moment in Moment:
        policy.observe(moment, backend, request, 0.0)


def test_spreads_different_requests_over_equals(build):
    candidates, policy = backends(4), build()
    counts = Counter(policy.pick(candidates, request, 0.0).id for request in requests(2000))
    assert all(400 < counts[backend.id] < 600 for backend in candidates)


def test_any_weights_will_do(build):
    candidates, policy = backends(3), build()
    for backend, weight in zip(candidates, (1e-9, 1.0, 1e9), strict=True):
        backend.weight = weight
    for request in requests(100):
        chosen = policy.pick(candidates, request, 0.0)
        assert chosen in candidates
        chosen.load.enter()


def test_a_request_without_anything_to_go_by_will_do(build):
    candidates, policy = backends(3), build()
    assert policy.pick(candidates, Request(), 0.0) in candidates


def test_text_of_any_kind_will_do(build):
    candidates, policy = backends(3), build()
    odd = Request(client_ip="fe80::1%eth0", headers=((b"x-session-id", b"\xff\x00"),), field={"user": "\ud800"}.get)
    assert policy.pick(candidates, odd, 0.0) in candidates
