"""Hashing policies: membership and weights move only what they must."""

import random

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.core.backend import Backend, BackendSpec
from llmproxy.core.request import Request
from llmproxy.policy.routing.registry import build

POOLS = st.lists(st.floats(0.1, 10.0), min_size=2, max_size=12)
NAMES = st.sampled_from(["ip_hash", "session_affinity"])
KEYS = [f"key-{i}" for i in range(60)]


def members(weights):
    return [
        Backend(BackendSpec(id=f"b{i}", url=f"http://10.0.0.{i}:8000", weight=weight))
        for i, weight in enumerate(weights)
    ]


def placed(name, candidates):
    policy = build(name, {}, random.Random(0))
    return {
        key: policy.pick(candidates, Request(client_ip=key, headers=((b"x-session-id", key.encode()),)), 0.0)
        for key in KEYS
    }


@given(NAMES, POOLS, st.data())
def test_a_leaver_moves_only_its_own(name, weights, data):
    pool = members(weights)
    before = placed(name, pool)
    gone = data.draw(st.sampled_from(pool))
    after = placed(name, [backend for backend in pool if backend is not gone])
    for key, backend in before.items():
        assert after[key] is backend or backend is gone


@given(NAMES, POOLS)
def test_a_newcomer_takes_only_for_itself(name, weights):
    pool = members(weights)
    before, after = placed(name, pool[:-1]), placed(name, pool)
    for key, backend in after.items():
        assert backend is before[key] or backend is pool[-1]


@given(NAMES, POOLS, st.randoms(use_true_random=False))
def test_order_plays_no_part(name, weights, dice):
    pool = members(weights)
    shuffled = list(pool)
    dice.shuffle(shuffled)
    assert placed(name, pool) == placed(name, shuffled)


@given(NAMES, POOLS, st.floats(0.05, 0.99))
def test_a_backend_that_counts_less_only_loses(name, weights, factor):
    pool = members(weights)
    before = placed(name, pool)
    pool[0].weight *= factor
    for key, backend in placed(name, pool).items():
        assert backend is before[key] or before[key] is pool[0]


@given(POOLS, st.lists(st.sampled_from(KEYS), max_size=80), st.floats(1.0, 3.0))
def test_no_backend_gets_more_than_the_bound(weights, arrivals, bound):
    pool = members(weights)
    policy = build("session_affinity", {"load_bound": bound}, random.Random(0))
    total_weight = sum(weights)
    for count, key in enumerate(arrivals, start=1):
        chosen = policy.pick(pool, Request(headers=((b"x-session-id", key.encode()),)), 0.0)
        chosen.load.enter()
        # One request more than the share, for rounding up.
        assert chosen.load.in_flight < bound * count * chosen.weight / total_weight + 1.001
