"""Whose money it was: busy time by use, idle time by everybody's use, nothing lost."""

import pytest

from llmproxy.control.costs import Costs
from llmproxy.core.backend import Backend, BackendSpec
from llmproxy.core.clock import ManualClock
from llmproxy.telemetry.usage import Usage


class Pool:
    def __init__(self, *prices: float) -> None:
        self.backends = [
            Backend(BackendSpec(f"b{number}", "http://b", price_per_hour=price)) for number, price in enumerate(prices)
        ]


class Books:
    def __init__(self, **pools: Pool) -> None:
        self.clock, self.usage, self.pools, self.resting = ManualClock(0.0), Usage(), pools, 0.0
        self.costs = Costs(lambda: self.pools, self.usage, self.clock, outside=lambda pool: {("", False): self.resting})  # type: ignore[arg-type,return-value]

    def pass_s(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.advance(1.0)
            self.costs.expired(self.clock())

    def read(self, name: str) -> dict[tuple[str, ...], float]:
        return dict(self.costs.readers()[name]())


def test_busy_and_idle_add_up_to_the_price() -> None:
    books = Books(main=Pool(3.6, 7.2))
    books.pools["main"].backends[0].load.enter()
    books.resting = 3.6
    books.pass_s(100)
    assert books.read("llmproxy_cost_per_hour") == {("main",): pytest.approx(14.4)}
    assert books.read("llmproxy_cost_total") == {
        ("main", "busy"): pytest.approx(0.1),
        ("main", "idle"): pytest.approx(0.3),
    }
    assert books.costs.view()["pools"]["main"]["not_shared_out_yet"] == pytest.approx(0.4)


def test_spot_is_told_apart_from_on_demand_and_tiers_from_each_other() -> None:
    pool = Pool(3.6)
    pool.backends.append(Backend(BackendSpec("s", "http://b", price_per_hour=1.8, tier="small", spot=True)))
    books = Books(main=pool)
    books.resting = 3.6
    books.pass_s(100)
    assert books.read("llmproxy_tier_cost_total") == {
        ("main", "", "on_demand"): pytest.approx(0.2),
        ("main", "small", "spot"): pytest.approx(0.05),
    }
    view = books.costs.view()["pools"]["main"]
    assert view["markets"] == {"on_demand": pytest.approx(0.2), "spot": pytest.approx(0.05)}
    assert view["tiers"] == {"small": pytest.approx(0.05)}


def test_it_is_shared_out_by_time_at_backends_and_nothing_is_lost() -> None:
    books = Books(main=Pool(36.0))
    [backend] = books.pools["main"].backends
    backend.load.enter()
    books.pass_s(50)
    backend.load.leave()
    books.usage.count(("main", "big", "acme"), 3000, 30.0)
    books.usage.count(("main", "small", "dev"), 1000, 10.0)
    books.pass_s(50)
    assert books.read("llmproxy_tenant_cost_total") == {("acme",): pytest.approx(0.75), ("dev",): pytest.approx(0.25)}
    # From here on all of the work is one tenant's, and the idle time is still everybody's.
    backend.load.enter()
    books.pass_s(100)
    books.usage.count(("main", "small", "dev"), 1000, 20.0)
    books.pass_s(1)
    by_tenant = books.read("llmproxy_tenant_cost_total")
    assert by_tenant[("acme",)] == pytest.approx(0.75)
    assert by_tenant[("dev",)] == pytest.approx(0.25 + 1.01)
    view = books.costs.view()["pools"]["main"]
    assert view["cost"] == pytest.approx(sum(by_tenant.values()))
    assert view["models"]["small"]["requests"] == 2
    assert view["per_thousand_tokens"] == pytest.approx(view["cost"] / 5)
    assert view["tenants"]["acme"]["per_request"] == pytest.approx(0.75)


def test_ratios_are_of_the_last_hour() -> None:
    books = Books(main=Pool(1.0))
    books.usage.count(("main", "m", "t"), 1000, 1.0)
    books.pass_s(3600)
    assert books.read("llmproxy_cost_per_thousand_tokens") == {("main", "m"): pytest.approx(1.0)}
    books.pass_s(3600)
    assert books.read("llmproxy_cost_per_request") == {}, "an hour without a request has no price of one"
    books.usage.count(("main", "m", "t"), 500, 1.0)
    books.pass_s(1)
    assert books.read("llmproxy_cost_per_thousand_tokens")[("main", "m")] == pytest.approx(2.0, rel=0.02)


def test_pools_without_a_price_have_no_account() -> None:
    books = Books(main=Pool(0.0), paid=Pool(1.0))
    books.pass_s(2)
    assert set(books.costs.view()["pools"]) == {"paid"}
    del books.pools["paid"]
    books.pass_s(1)
    assert books.costs.view()["pools"] == {}


def test_nobody_counts_use_where_nothing_has_a_price() -> None:
    free, priced = Books(main=Pool(0.0)), Books(main=Pool(0.0, 3.6))
    for books in (free, priced):
        books.pass_s(1)
    assert (free.usage.is_priced, priced.usage.is_priced) == (False, True)
