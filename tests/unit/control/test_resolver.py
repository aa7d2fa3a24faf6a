import asyncio
import random
import socket

import pytest

from llmproxy.control.resolver import REFRESH_S, RETRY_S, NameService, Resolver
from llmproxy.core.clock import ManualClock


class Dns:
    """A `Lookup` whose zone the test writes."""

    def __init__(self, **zone):
        self.zone = zone
        self.asked = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, host, port):
        self.asked.append(host)
        await self.gate.wait()
        if host not in self.zone:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return tuple((int(socket.AF_INET), (address, port)) for address in self.zone[host])


@pytest.fixture
def clock():
    return ManualClock(100.0)


def resolver_of(dns, clock, **options):
    return Resolver(clock=clock, rng=random.Random(7), lookup=dns, **options)


def v4(*addresses, port=8000):
    return tuple((int(socket.AF_INET), (address, port)) for address in addresses)


@pytest.mark.parametrize("literal", ["127.0.0.1", "::1", "10.1.2.3", "fe80::1"])
async def test_literals_pass_through_without_a_lookup(literal, clock):
    dns = Dns()
    resolver = resolver_of(dns, clock)
    [(family, sockaddr)] = resolver.cached(literal, 8000)
    assert sockaddr[:2] == (literal, 8000)
    assert family == (socket.AF_INET6 if ":" in literal else socket.AF_INET)
    assert await resolver.lookup(literal, 8000) == resolver.cached(literal, 8000)
    assert await resolver.hosts(literal, 8000) == (literal,)
    clock.advance(1e9)
    await resolver.refresh_due()
    assert dns.asked == []


async def test_a_name_is_unknown_until_looked_up_then_cached(clock):
    dns = Dns(engine=["10.0.0.1", "10.0.0.2"])
    resolver = resolver_of(dns, clock)
    assert resolver.cached("engine", 8000) is None
    assert await resolver.lookup("engine", 8000) == v4("10.0.0.1", "10.0.0.2")
    assert await resolver.hosts("engine", 8000) == ("10.0.0.1", "10.0.0.2")
    assert resolver.cached("engine", 8000) == v4("10.0.0.1", "10.0.0.2")
    assert dns.asked == ["engine"]


async def test_waiters_share_one_lookup_and_a_cancelled_one_disturbs_nobody(clock):
    dns = Dns(engine=["10.0.0.1"])
    dns.gate.clear()
    resolver = resolver_of(dns, clock)
    first, second = (asyncio.create_task(resolver.lookup("engine", 8000)) for _ in range(2))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()
    dns.gate.set()
    assert await second == v4("10.0.0.1")
    assert first.cancelled()
    assert dns.asked == ["engine"]


async def test_refresh_follows_dns_in_its_time_and_tells_of_changes_only(clock):
    changes = []
    dns = Dns(engine=["10.0.0.1", "10.0.0.2"])
    resolver = resolver_of(dns, clock, on_change=lambda: changes.append(resolver.cached("engine", 8000)))
    await resolver.lookup("engine", 8000)
    assert changes == [v4("10.0.0.1", "10.0.0.2")]
    clock.advance(REFRESH_S * 0.74)
    await resolver.refresh_due()
    assert dns.asked == ["engine"]
    dns.zone["engine"] = ["10.0.0.2", "10.0.0.1"]  # rotated, not changed
    clock.advance(REFRESH_S * 0.52)
    await resolver.refresh_due()
    assert dns.asked == ["engine"] * 2
    assert len(changes) == 1
    dns.zone["engine"] = ["10.0.0.3"]
    clock.advance(REFRESH_S * 1.26)
    await resolver.refresh_due()
    assert changes[1:] == [v4("10.0.0.3")]


async def test_a_dead_dns_keeps_the_last_addresses(clock, caplog):
    dns = Dns(engine=["10.0.0.1"])
    resolver = resolver_of(dns, clock)
    await resolver.lookup("engine", 8000)
    del dns.zone["engine"]
    for _ in range(3):
        clock.advance(REFRESH_S * 2)
        await resolver.refresh_due()
    assert await resolver.lookup("engine", 8000) == v4("10.0.0.1")
    assert len(caplog.records) == 1, "one line for one outage"
    dns.zone["engine"] = ["10.0.0.9"]
    clock.advance(RETRY_S)
    await resolver.refresh_due()
    assert resolver.cached("engine", 8000) == v4("10.0.0.9")


async def test_a_name_that_never_resolved_fails_at_once_until_it_is_due_again(clock):
    dns = Dns()
    resolver = resolver_of(dns, clock)
    for _ in range(3):
        with pytest.raises(OSError, match="cannot resolve engine"):
            await resolver.lookup("engine", 8000)
    assert dns.asked == ["engine"]
    dns.zone["engine"] = ["10.0.0.1"]
    clock.advance(RETRY_S)
    assert await resolver.lookup("engine", 8000) == v4("10.0.0.1")


async def test_a_name_that_never_resolved_is_tried_again_in_the_background(clock):
    dns = Dns()
    resolver = resolver_of(dns, clock)
    with pytest.raises(OSError, match="cannot resolve engine"):
        await resolver.lookup("engine", 8000)
    dns.zone["engine"] = ["10.0.0.1"]
    await resolver.refresh_due()
    assert resolver.cached("engine", 8000) is None, "not due yet"
    clock.advance(RETRY_S)
    await resolver.refresh_due()
    assert resolver.cached("engine", 8000) == v4("10.0.0.1")


async def test_names_nobody_uses_are_forgotten(clock):
    dns = Dns(old=["10.0.0.1"], new=["10.0.0.2"])
    resolver = resolver_of(dns, clock)
    await asyncio.gather(resolver.lookup("old", 8000), resolver.lookup("new", 8000))
    resolver.keep_only({("new", 8000)})
    clock.advance(REFRESH_S * 2)
    dns.asked.clear()
    await resolver.refresh_due()
    assert dns.asked == ["new"]
    assert resolver.cached("old", 8000) is None


async def test_the_background_loop_survives_a_bad_listener(clock, naps, eventually):
    def explode():
        raise RuntimeError("no")

    dns = Dns(engine=["10.0.0.1"])
    resolver = resolver_of(dns, clock, on_change=explode, sleep=naps)
    await resolver.lookup("engine", 8000)
    resolver.start()
    try:
        for address in ("10.0.0.2", "10.0.0.3"):
            dns.zone["engine"] = [address]
            clock.advance(REFRESH_S * 2)
            await eventually(lambda: naps.sleeping)
            naps.wake()
            await eventually(lambda address=address: resolver.cached("engine", 8000) == v4(address))
    finally:
        await resolver.stop()


async def test_stop_ends_a_lookup_in_progress(clock):
    dns = Dns(engine=["10.0.0.1"])
    dns.gate.clear()
    resolver = resolver_of(dns, clock)
    waiter = asyncio.create_task(resolver.lookup("engine", 8000))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await resolver.stop()
    with pytest.raises(asyncio.CancelledError):
        await waiter


async def test_the_system_resolver_knows_localhost_and_refuses_impossible_names(clock):
    resolver = Resolver(clock=clock, rng=random.Random(7))
    assert {sockaddr[0] for _, sockaddr in await resolver.lookup("localhost", 80)} <= {"127.0.0.1", "::1"}
    with pytest.raises(OSError, match="cannot resolve"):
        await resolver.lookup("x" * 70 + ".test", 80)


async def test_name_service_answers_as_aiohttp_asks(clock):
    service = NameService(resolver_of(Dns(engine=["10.0.0.1"]), clock))
    [found] = await service.resolve("engine", 8000, socket.AF_UNSPEC)
    assert (found["host"], found["port"], found["family"]) == ("10.0.0.1", 8000, socket.AF_INET)
    assert await service.resolve("engine", 8000, socket.AF_INET6) == []
    await service.close()
