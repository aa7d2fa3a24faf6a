import random

import pytest

from llmproxy.core.backend import Backend, BackendSpec
from llmproxy.core.request import Request
from llmproxy.policy.routing.registry import build


@pytest.fixture
def backends():
    """`backends(1, 3)`: one backend for each weight, with ids a, b, c..."""

    def make(*weights):
        return [
            Backend(BackendSpec(id=chr(97 + i), url=f"http://10.0.0.{i}:8000", weight=weight))
            for i, weight in enumerate(weights)
        ]

    return make


@pytest.fixture
def policy():
    """`policy("name", option=...)`: built as the application does it, with a fixed seed."""

    def make(name, **options):
        return build(name, options, random.Random(7))

    return make


@pytest.fixture
def picks():
    """`picks(policy, candidates, n)`: ids of `n` picks in a row, nothing in flight in between."""

    def make(policy, candidates, count, request=None):
        return [policy.pick(candidates, request or Request(), 0.0).id for _ in range(count)]

    return make
