import random
import socket

import pytest

from llmproxy.config.model import PoolConfig
from llmproxy.control.registrar import Registrar
from llmproxy.control.resolver import REFRESH_S, Resolver
from llmproxy.core.backend import Status
from llmproxy.core.clock import ManualClock


class Fleet:
    """A registrar over a resolver whose zone the test writes."""

    def __init__(self):
        self.zone = {}
        self.clock = ManualClock(50.0)
        self.changed = []
        self.resolver = Resolver(clock=self.clock, rng=random.Random(1), lookup=self.lookup)
        self.registrar = Registrar(
            self.resolver, clock=self.clock, on_change=lambda pool: self.changed.append(pool.name)
        )
        self.resolver.on_change = self.registrar.update

    async def lookup(self, host, port):
        if host not in self.zone:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return tuple((int(socket.AF_INET), (address, port)) for address in self.zone[host])

    async def apply(self, *pools):
        await self.registrar.prepare({pool.name: pool.settings for pool in pools})
        self.registrar.set_pools({pool.name: pool for pool in pools})
        self.registrar.update()

    async def later(self):
        self.clock.advance(REFRESH_S * 2)
        await self.resolver.refresh_due()


@pytest.fixture
def fleet():
    return Fleet()


def settings(*backends):
    return PoolConfig.model_validate({"backends": list(backends)})


async def test_configuration_becomes_membership(fleet, make_pool):
    pool = make_pool({"url": "http://10.0.0.1:8000", "id": "a"}, {"url": "http://10.0.0.2:8000", "id": "b"})
    await fleet.apply(pool)
    assert [backend.id for backend in pool.backends] == ["a", "b"]
    assert pool.health.memberships == [(("a", "b"), 50.0)]
    assert fleet.changed == ["llama"]


async def test_an_unchanged_reload_touches_nothing(fleet, make_pool):
    pool = make_pool("http://10.0.0.1:8000")
    await fleet.apply(pool)
    before = pool.backends
    pool.settings = settings("http://10.0.0.1:8000")
    await fleet.apply(pool)
    assert pool.backends is before
    assert len(pool.health.memberships) == 1


async def test_a_reload_keeps_the_load_health_and_drain_of_those_who_stay(fleet, make_pool):
    pool = make_pool({"url": "http://10.0.0.1:8000", "id": "stays"}, {"url": "http://10.0.0.2:8000", "id": "leaves"})
    await fleet.apply(pool)
    stays, leaves = pool.backends
    stays.load.enter()
    leaves.load.enter()
    pool.health.drain(stays, 0.0)
    pool.settings = settings(
        {"url": "http://10.0.0.3:8000", "id": "joins"},
        {"url": "http://10.0.0.1:8000", "id": "stays", "weight": 4},
    )
    await fleet.apply(pool)
    assert [backend.id for backend in pool.backends] == ["joins", "stays"]
    assert pool.backends[1] is stays
    assert (stays.load.in_flight, stays.status, stays.spec.weight) == (1, Status.DRAINING, 4)
    assert stays in pool.health.drained
    assert pool.routing.forgotten == ["leaves"]
    assert leaves.load.in_flight == 1, "its request is left to finish"


async def test_a_change_of_weight_alone_is_told_to_the_registry(fleet, make_pool):
    pool = make_pool({"url": "http://10.0.0.1:8000", "id": "a"})
    await fleet.apply(pool)
    pool.settings = settings({"url": "http://10.0.0.1:8000", "id": "a", "weight": 2})
    await fleet.apply(pool)
    assert len(pool.health.memberships) == 2
    assert pool.routing.forgotten == []


async def test_membership_follows_dns(fleet, make_pool):
    fleet.zone["engines"] = ["10.0.0.1", "10.0.0.2"]
    pool = make_pool({"url": "http://engines:8000", "resolve": True})
    await fleet.apply(pool)
    first, second = pool.backends
    fleet.zone["engines"] = ["10.0.0.3", "10.0.0.2"]
    await fleet.later()
    assert [backend.spec.host for backend in pool.backends] == ["10.0.0.2", "10.0.0.3"]
    assert pool.backends[0] is second
    assert pool.routing.forgotten == [first.id]


async def test_a_dead_dns_empties_no_pool(fleet, make_pool):
    fleet.zone["engines"] = ["10.0.0.1"]
    pool = make_pool({"url": "http://engines:8000", "resolve": True})
    await fleet.apply(pool)
    before = pool.backends
    fleet.zone.clear()
    await fleet.later()
    await fleet.apply(pool)
    assert pool.backends is before


async def test_a_name_that_resolves_late_joins_late(fleet, make_pool):
    pool = make_pool({"url": "http://engines:8000", "resolve": True})
    await fleet.apply(pool)
    assert pool.backends == ()
    fleet.zone["engines"] = ["10.0.0.1"]
    await fleet.later()
    assert [backend.spec.host for backend in pool.backends] == ["10.0.0.1"]


async def test_names_of_removed_pools_are_no_longer_looked_up(fleet, make_pool):
    fleet.zone |= {"one": ["10.0.0.1"], "two": ["10.0.0.2"]}
    one, two = make_pool("http://one:8000", name="one"), make_pool("http://two:8000", name="two")
    await fleet.apply(one, two)
    await fleet.apply(two)
    assert fleet.resolver.cached("one", 8000) is None
    assert fleet.resolver.cached("two", 8000) is not None
