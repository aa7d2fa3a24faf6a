"""The lives of one pool's replicas, as far as this proxy has a part in them: it waits until one answers, has it warmed,
takes it into the pool, drains it, puts it to sleep. What is started and stopped, and when, the loop decides; where
another proxy leads, its word decides, stage for stage (`follow`).

A replica that starts is no member of the pool: nothing probes it but this, nothing is sent there, and its failing
counts against nobody's health.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from llmproxy.config.model import PoolConfig
from llmproxy.control.actuators.base import Instance
from llmproxy.control.scaling.backoff import Backoff
from llmproxy.control.scaling.bring_up import BringUp
from llmproxy.control.scaling.draining import has_drained
from llmproxy.control.scaling.errands import Errands
from llmproxy.control.scaling.fleet import COMING, Fleet, Replica, Stage
from llmproxy.control.scaling.membership import Membership
from llmproxy.control.scaling.orders import Order
from llmproxy.control.scaling.sleep import Sleep
from llmproxy.control.scaling.start_times import StartTimes
from llmproxy.control.scaling.terms import Terms
from llmproxy.core.backend import Backend, BackendSpec, Status
from llmproxy.core.clock import Clock
from llmproxy.core.pool import Pool

_LET_GO: Final = frozenset({Stage.DRAINING, Stage.STANDBY})
_BAD: Final = frozenset({Status.UNHEALTHY, Status.LOADING, Status.NEW, Status.SLEEPING})
"""Of one that should serve. Whoever put it to sleep did not say so here, and nobody would wake it."""

_log = logging.getLogger("llmproxy.control.scaling")


class Lives:
    """`announce(specs)` makes them the pool's members from this source. `on_ready` is told when capacity came.
    `have_left(replica)`: whether other proxies are done with one that drains. `hottest(count)`: requests to warm one
    with, as traffic has taught."""

    def __init__(
        self,
        pool: Pool[PoolConfig],
        fleet: Fleet,
        bring_up: BringUp,
        terms: Terms,
        *,
        announce: Callable[[Sequence[BackendSpec]], None],
        times: StartTimes,
        backoff: Backoff,
        clock: Clock,
        on_ready: Callable[[], None] = lambda: None,
        have_left: Callable[[Replica], bool] = lambda replica: True,
        hottest: Callable[[int], Sequence[dict[str, Any]]] = lambda count: (),
    ) -> None:
        self.terms = terms
        self.orders: Mapping[str, Order] | None = None
        """What the proxy that leads last said; None where it is this one."""
        self.has_seen = False
        """Whether it has been said who there is."""
        self.target = 0
        """How many should serve; one that comes up beyond that goes to the warm pool."""
        self.starts = {"ok": 0, "failed": 0, "died": 0}
        self.last_start_s: float | None = None
        self._pool = pool
        self._fleet = fleet
        self._bring_up = bring_up
        self._members = Membership(pool, fleet, announce, lambda tier: self.terms.of(tier))
        self._times = times
        self._backoff = backoff
        self._clock = clock
        self._on_ready = on_ready
        self._have_left = have_left
        self._hottest = hottest
        self._errands = Errands(pool.name)
        self._sleep = Sleep(pool, bring_up, backoff, clock)

    @property
    def warm_size(self) -> int:
        """How many may rest. None where engines have to sleep and will not."""
        return 0 if self._sleep.refused_under is self.terms else self.terms.warm_size

    async def stop(self) -> None:
        await self._errands.stop()

    def cost_per_hour(self, *stages: Stage) -> float:
        """Of the replicas in these stages."""
        return sum(self.terms.of(one.tier).price_per_hour for one in self._fleet.at(*stages))

    # -- what happens to them --------------------------------------------------------------------------------------

    def see(self, instances: Iterable[Instance], known: Mapping[str, Order] | None = None) -> set[str]:
        """The actuator's list is new. The tiers of those that are missing there and should not be. `known`: what was
        last said of those that may be in it."""
        now = self._clock()
        changes = self._fleet.see(instances, now)
        for replica in changes.new:
            replica.adopted = not self.has_seen
            order = known.get(replica.id) if known else None
            if order is not None and order.stage is Stage.STANDBY and replica.stage is Stage.STARTING:
                replica.asleep = order.asleep
                replica.move(Stage.STANDBY, now)
        self.has_seen = True
        for replica in changes.died:
            self._errands.end(replica)
            if self.orders is not None and replica.stage in _LET_GO:
                # Stopped by the proxy that leads, whose word of that comes later.
                continue
            came = replica.stage in COMING
            if not (came and replica.given_up):
                self.starts["failed" if came else "died"] += 1
                self._backoff.failed(now, replica.tier, of_start=came)
            text = "pool %s: replica %s is gone without having been told to (it was %s)"
            _log.warning(text, self._pool.name, replica.id, replica.stage.value)
        for replica in changes.gone:
            self._errands.end(replica)
        for replica in self._fleet.at(Stage.STOPPING):
            self._errands.end(replica)
        self.begin_starts()
        self._members.publish()
        return {replica.tier for replica in changes.died}

    def follow(self, orders: Mapping[str, Order]) -> None:
        """Another proxy leads: what it said of each replica holds here too. Of one it has not spoken of yet, everybody
        judges for himself."""
        self.orders = orders
        for replica in list(self._fleet.replicas.values()):
            order = orders.get(replica.id)
            if order is not None and order.stage is not replica.stage:
                self._obey(replica, order)
            if order is not None:
                replica.asleep = order.asleep
        self.begin_starts()
        self._members.publish()

    def begin_starts(self) -> None:
        """Wait for those that come and that nobody waits for."""
        for replica in (one for one in self._fleet.at(*COMING) if one not in self._errands):
            if replica.stage is Stage.WARMING:
                # Whoever warmed it was stopped, or failed at it.
                replica.move(Stage.STARTING, self._clock())
            if replica.url and self._may_serve(replica):
                self._errands.begin(replica, self._come_up(replica))

    def hold(self, leaving: Iterable[Replica]) -> None:
        """They are about to be stopped: none that comes may begin to serve meanwhile. Those that are not stopped after
        all go on with `begin_starts`."""
        for replica in leaving:
            if replica.stage in COMING:
                self._errands.end(replica)

    def _obey(self, replica: Replica, order: Order) -> None:
        wanted, now = order.stage, self._clock()
        if wanted is Stage.STOPPING or wanted is Stage.STANDBY:
            self._errands.end(replica)
            replica.move(wanted, now)
        elif wanted is Stage.SERVING:
            if replica.stage is Stage.DRAINING:
                self.undrain(replica)
            elif replica.stage is Stage.STANDBY or replica.stage is Stage.WARMING:
                self._errands.end(replica)
                replica.roused = replica.roused or replica.stage is Stage.STANDBY
                replica.move(Stage.STARTING, now)
        elif replica.stage is Stage.SERVING and wanted is Stage.DRAINING:
            self.drain(replica)
        elif replica.stage in COMING:
            self._errands.end(replica)
            if wanted is Stage.DRAINING:
                # Never to be asked anything from here: the leader need not wait for this proxy.
                replica.move(Stage.STANDBY, now)

    def _may_serve(self, replica: Replica) -> bool:
        """Whether it is for this proxy to take it into the pool once it answers."""
        order = self.orders.get(replica.id) if self.orders is not None else None
        return order is None or order.stage is Stage.SERVING

    def hung(self, backend: Backend) -> None:
        """Its engine makes no progress. Whoever leads sees that for himself."""
        if self.orders is not None:
            return
        for replica in self._fleet.at(Stage.SERVING):
            if replica.backend is backend:
                self._recycle(replica, "it hangs")

    def tick(self, now: float, *, paused: bool = False) -> list[Replica]:
        """Who can be stopped now: drained, or past its time. Nobody, where that is another's business. While paused
        nobody is drained for being unhealthy."""
        if self.orders is not None:
            return []
        for replica in self._fleet.at(Stage.SERVING):
            self._watch(replica, now, paused)
        # One that is warmed has come up, and warming has a bound of its own. One that was there before this proxy may
        # be as old as it likes.
        over = [one for one in self._fleet.at(Stage.STARTING) if now - one.since > self._times.limit_s]
        for replica in (one for one in over if not one.given_up):
            replica.given_up = True
            text = "pool %s: replica %s has not come up within %.0f s: stopped"
            _log.error(text, self._pool.name, replica.id, self._times.limit_s)
            self.starts["failed"] += 1
            self._backoff.failed(now, replica.tier, of_start=True)
        draining, drain_s = self._fleet.at(Stage.DRAINING), self.terms.drain_s
        return [*over, *(one for one in draining if has_drained(one, drain_s, self._have_left, now))]

    def not_started(self) -> None:
        """One that was to be started was not even begun."""
        self.starts["failed"] += 1

    def drain(self, replica: Replica) -> None:
        """No new work."""
        now = self._clock()
        if replica.backend is not None:
            self._pool.health.drain(replica.backend, now)
        replica.move(Stage.DRAINING, now)

    def undrain(self, replica: Replica) -> None:
        """It is needed after all."""
        now = self._clock()
        if replica.backend is not None:
            self._pool.health.undrain(replica.backend, now)
        replica.move(Stage.SERVING, now)
        self._on_ready()

    def rest(self, replica: Replica) -> None:
        """Out of rotation, to be had again soon. Where sleeping fails it is drained, and will be stopped."""
        replica.move(Stage.STANDBY, self._clock())
        self._members.publish()
        if self.terms.warm_by_sleep:
            self._errands.begin(replica, self._sleep.begin(replica, self._members.spec(replica), self.terms))

    def rouse(self, replica: Replica) -> None:
        """Back from the warm pool."""
        self._errands.end(replica)
        replica.move(Stage.STARTING, self._clock())
        replica.asked_at = self._clock()
        replica.roused, replica.given_up = True, False
        self._errands.begin(replica, self._come_up(replica))

    def leave(self, replica: Replica) -> None:
        """It is being stopped."""
        self._errands.end(replica)
        replica.move(Stage.STOPPING, self._clock())
        self._members.publish()

    # -- errands ---------------------------------------------------------------------------------------------------

    async def _come_up(self, replica: Replica) -> None:
        spec, settings = self._members.spec(replica), self._pool.settings
        adopted = replica.adopted and not replica.roused
        if adopted and await self._bring_up.is_asleep(spec, settings):
            replica.asleep = True
            replica.move(Stage.STANDBY, self._clock())
            _log.info("pool %s: replica %s is asleep", self._pool.name, replica.id)
            return
        if replica.roused and replica.asleep:
            await self._bring_up.wake(spec, settings)
        await self._bring_up.until_it_answers(spec, settings)
        replica.asleep = False
        took_s = self._clock() - replica.asked_at
        prompts = [*self.terms.prompts, *self._hottest(self.terms.hottest)]
        if prompts and not adopted and self.orders is None:
            replica.move(Stage.WARMING, self._clock())
            await self._bring_up.warm(spec, settings, prompts, self.terms.warm_up_s)
        if not adopted:
            self.starts["ok"] += 1
            self.last_start_s = took_s
            if not replica.roused and self.orders is None:
                # Waking one says nothing of what can be had, nor does what another proxy started.
                self._backoff.came_up(replica.tier)
                self._times.took(took_s)
        _log.info("pool %s: replica %s answers, %.1f s after it was asked for", self._pool.name, replica.id, took_s)
        if not self._may_serve(replica):
            return
        if self.orders is not None or self._fleet.count(Stage.SERVING) < self.target or not self.warm_size:
            self._serve(replica, ease_in=not adopted)
        else:
            self._errands.let_go(replica)
            self.rest(replica)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _serve(self, replica: Replica, *, ease_in: bool) -> None:
        now = self._clock()
        replica.move(Stage.SERVING, now)
        replica.bad_since = None
        self._members.publish()
        if ease_in and replica.backend is not None:
            self._pool.health.ease_in(replica.backend, now)
        self._on_ready()

    def _watch(self, replica: Replica, now: float, paused: bool) -> None:
        backend = replica.backend
        if backend is None or self._pool.health.status(backend, now) not in _BAD:
            replica.bad_since = None
        elif replica.bad_since is None:
            replica.bad_since = now
        elif now - replica.bad_since >= self.terms.replace_after_s and not paused:
            self._recycle(replica, f"it has been unhealthy or asleep for {self.terms.replace_after_s:.0f} s")

    def _recycle(self, replica: Replica, why: str) -> None:
        _log.warning("pool %s: replica %s is replaced: %s", self._pool.name, replica.id, why)
        replica.recycle = why
        self._backoff.failed(self._clock(), replica.tier)
        self.starts["died"] += 1
        self.drain(replica)
