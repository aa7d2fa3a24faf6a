"""Whoever leaves is forgotten once it has drained and a scraper had time to see the end of it, and nobody else is."""

import pytest

from llmproxy.control.leavers import LINGER_S, Leavers
from llmproxy.core.backend import Backend, BackendSpec
from llmproxy.core.clock import ManualClock
from llmproxy.core.lease import Lease


class Pool:
    """As much of a pool as is looked at here."""

    def __init__(self, *backends):
        self.backends = backends


def backend(id, url="http://10.0.0.1:8000"):
    return Backend(BackendSpec(id, url))


class Watched:
    """Leavers with a clock, swept as the wire does: whenever the deadline has passed."""

    def __init__(self):
        self.clock = ManualClock(50.0)
        self.gone = []
        self.leavers = Leavers(
            self.clock, on_backend=lambda *which: self.gone.append(which), on_pool=lambda name: self.gone.append(name)
        )

    def pools(self, **pools):
        self.leavers.update({name: Pool(*backends) for name, backends in pools.items()})

    def wait(self, seconds):
        for _ in range(int(seconds * 10)):
            now = self.clock.advance(0.1)
            if self.leavers.deadline <= now:
                self.leavers.expired(now)


@pytest.fixture
def watched():
    return Watched()


def test_it_costs_nothing_while_nobody_leaves(watched):
    watched.pools(p=[backend("a")])
    assert watched.leavers.deadline == float("inf")


def test_an_idle_leaver_is_forgotten_after_a_while_and_once(watched):
    a, b = backend("a"), backend("b")
    watched.pools(p=[a, b])
    watched.pools(p=[b])
    watched.wait(LINGER_S - 1.5)
    assert watched.gone == []
    watched.wait(3)
    assert watched.gone == [("p", "a")]
    watched.wait(200)
    assert watched.gone == [("p", "a")]
    assert watched.leavers.deadline == float("inf")


def test_a_busy_one_is_waited_for(watched):
    a, b = backend("a"), backend("b")
    watched.pools(p=[a, b])
    with Lease(a, lambda: None):
        watched.pools(p=[b])
        watched.wait(3 * LINGER_S)
        assert watched.gone == []
    watched.wait(LINGER_S - 1.5)
    assert watched.gone == []
    watched.wait(3)
    assert watched.gone == [("p", "a")]


def test_a_namesake_in_its_place_keeps_the_rows(watched):
    old, new = backend("a"), backend("a", "http://10.0.0.2:8000")
    watched.pools(p=[old])
    watched.pools(p=[new])
    watched.wait(2 * LINGER_S)
    assert watched.gone == []
    # When that one leaves too, they go; the same id in another pool is another backend.
    watched.pools(p=[backend("b")], q=[old])
    watched.wait(2 * LINGER_S)
    assert watched.gone == [("p", "a")]


def test_of_two_leavers_of_one_name_the_last_one_counts(watched):
    first, second = backend("a"), backend("a", "http://10.0.0.2:8000")
    with Lease(second, lambda: None):
        for members in ([first], [second], []):
            watched.pools(p=members)
        watched.wait(2 * LINGER_S)
        assert watched.gone == []
    watched.wait(2 * LINGER_S)
    assert watched.gone == [("p", "a")]


def test_a_pool_goes_after_the_last_of_its_backends(watched):
    a, b, c = backend("a"), backend("b"), backend("c")
    watched.pools(p=[a, b], q=[c])
    with Lease(b, lambda: None):
        watched.pools(q=[c])
        watched.wait(2 * LINGER_S)
        assert watched.gone == [("p", "a")]
    watched.wait(2 * LINGER_S)
    assert watched.gone == [("p", "a"), ("p", "b"), "p"]


def test_a_pool_that_comes_back_is_kept(watched):
    watched.pools(p=[backend("a")])
    watched.pools()
    watched.wait(LINGER_S / 2)
    watched.pools(p=[backend("a")])
    watched.wait(2 * LINGER_S)
    assert watched.gone == []


def test_an_empty_pool_goes_too(watched):
    watched.pools(p=[])
    watched.pools()
    watched.wait(2 * LINGER_S)
    assert watched.gone == ["p"]
