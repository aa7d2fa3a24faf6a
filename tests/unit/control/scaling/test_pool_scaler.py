"""The loop over an actuator in memory and a clock that tests drive: what it asks for, and what it never does."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from llmproxy.config.model import PoolConfig
from llmproxy.control.actuators.base import ActuatorError, Instance, TiersFailed
from llmproxy.control.scaling.audit import Audit
from llmproxy.control.scaling.autoscalers import Autoscalers
from llmproxy.control.scaling.backoff import Backoff
from llmproxy.control.scaling.bring_up import BringUp
from llmproxy.control.scaling.decisions import Decisions
from llmproxy.control.scaling.events import Activation, Event, Events
from llmproxy.control.scaling.fleet import Fleet, Stage
from llmproxy.control.scaling.keeper import Keeper
from llmproxy.control.scaling.lives import Lives
from llmproxy.control.scaling.meter import Meter
from llmproxy.control.scaling.parts import Pace, Parts
from llmproxy.control.scaling.pool_scaler import PoolScaler
from llmproxy.control.scaling.queries import Queries
from llmproxy.control.scaling.shared import Shared
from llmproxy.control.scaling.start_times import StartTimes
from llmproxy.control.scaling.terms import Terms, TierTerms
from llmproxy.core.backend import Backend, BackendSpec, Gauges, Status
from llmproxy.core.clock import ManualClock
from llmproxy.core.pool import Pool
from llmproxy.core.request import Request
from llmproxy.policy.admission.admission import Admission
from llmproxy.policy.admission.options import AdmissionOptions
from llmproxy.policy.health.registry import Health
from llmproxy.policy.health.settings import HealthSettings
from llmproxy.policy.retry.budget import Budget
from llmproxy.policy.routing.registry import build as build_routing
from llmproxy.policy.scaling.base import Signals, Wanted
from llmproxy.policy.scaling.decision import Decider
from llmproxy.policy.scaling.guardrails import Guardrails, Limits
from llmproxy.policy.scaling.stabiliser import Behavior, Direction, Stabiliser
from llmproxy.policy.scaling.tiers import Tier, Tiers
from llmproxy.stores.history import MemoryHistory
from llmproxy.telemetry.metrics import Metrics


class World:
    """An actuator, and who leads. `running` are the instances there are."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.running: dict[str, Instance] = {}
        self.calls: list[tuple[int, tuple[str, ...], int]] = []
        self.fails = False
        self.refuses = False
        """Who is there it says, and does nothing."""
        self.hold = False
        self.fence = 0
        self.made = 0
        self.tiers: Mapping[str, int] | None = None
        self.empty: set[str] = set()
        """Tiers of which it makes none, whatever it is asked for."""
        self.admits_it = False
        """Whether it says so."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def replicas(self) -> Sequence[Instance]:
        if self.fails:
            raise ActuatorError("out of order")
        return list(self.running.values())

    async def scale(
        self, count: int, *, leaving: Sequence[str] = (), fence: int = 0, tiers: Mapping[str, int] | None = None
    ) -> None:
        if self.fails or self.refuses:
            raise ActuatorError("out of order")
        assert fence >= self.fence, "an old leader acts"
        self.fence = fence
        assert 0 <= count <= self.most, f"{count} replicas"
        self.calls.append((count, tuple(leaving), fence))
        for id in leaving:
            self.running.pop(id, None)
        self.tiers = tiers
        for tier, wanted in (tiers or {}).items():
            there = [id for id, one in self.running.items() if one.tier == tier]
            assert len(there) <= wanted, "nobody is stopped who was not named"
            for _ in range(0 if tier in self.empty else wanted - len(there)):
                self._make(tier)
        if tiers is not None:
            short = [tier for tier in self.empty if tiers.get(tier)]
            if short and self.admits_it:
                raise TiersFailed("none to be had", short)
            return
        ending = sum(one.stopping for one in self.running.values())
        while len(self.running) > count + ending:
            self.running.popitem()
        while len(self.running) < count + ending:
            self._make("")

    def _make(self, tier: str) -> None:
        self.made += 1
        id = f"r{self.made}"
        self.running[id] = Instance(id, f"http://127.0.0.1:{9000 + self.made}", tier=tier)


class Crown:
    """A lock that several loops share."""

    def __init__(self) -> None:
        self.holder: Any = None
        self.fence = 0


class Claim:
    def __init__(self, crown: Crown) -> None:
        self._crown = crown

    async def acquire(self) -> int | None:
        if self._crown.holder is None:
            self._crown.holder = self
            self._crown.fence += 1
        return self._crown.fence if self._crown.holder is self else None

    def is_held(self, token: int) -> bool:
        return self._crown.holder is self and token == self._crown.fence

    async def release(self) -> None:
        if self._crown.holder is self:
            self._crown.holder = None


class Wish:
    """A policy that wants what a test says."""

    options_type = object

    def __init__(self) -> None:
        self.replicas: int | None = None
        self.need: float | None = None

    def want(self, signals: Signals, now: float) -> Wanted | None:
        return None if self.replicas is None else Wanted(self.replicas, "the test says so", "wish", need=self.need)


class Ready(BringUp):
    """Replicas that answer at once (while the world holds them, when `up` is set), and `says` to an order to sleep."""

    def __init__(self, world: World, up: asyncio.Event) -> None:
        self._world = world
        self._up = up
        self.says: int | None = 200
        self.asleep: set[str] = set()

    async def until_it_answers(self, spec: BackendSpec, settings: PoolConfig) -> None:
        assert spec.id not in self.asleep
        if self._world.hold:
            await self._up.wait()

    async def is_asleep(self, spec: BackendSpec, settings: PoolConfig) -> bool:
        return spec.id in self.asleep

    async def put_to_sleep(self, spec: BackendSpec, settings: PoolConfig) -> int | None:
        if self.says == 200:
            self.asleep.add(spec.id)
        return self.says

    async def wake(self, spec: BackendSpec, settings: PoolConfig) -> int | None:
        self.asleep.discard(spec.id)
        return 200


class Scene:
    """One loop; give it the `world` and `crown` of another to have two over the same fleet."""

    def __init__(
        self,
        *,
        least: int = 0,
        most: int = 4,
        warm: int = 0,
        sleep: bool = False,
        world: World | None = None,
        crown: Crown | None = None,
        shared: Shared | None = None,
        tiers: Sequence[Tier] = (),
        guardrails: Guardrails | None = None,
        price: float = 0.0,
    ) -> None:
        self.clock = ManualClock(1000.0)
        self.world = world or World(most)
        self.wish = Wish()
        self.up = asyncio.Event()
        self.paused = False
        settings = PoolConfig.model_validate(
            {"scaling": {"max": most, "actuator": {"kind": "process", "command": "x {port}"}}}
        )
        rng = random.Random(0)
        self.health = Health(HealthSettings(), rng)
        routing = build_routing("least_connections", {}, rng)
        self.pool: Pool[PoolConfig] = Pool(
            name="main",
            settings=settings,
            routing=routing,
            health=self.health,
            retries=Budget(0.2, 10),
            queue=Admission[str](AdmissionOptions(), routing),
        )
        self.engines = Ready(self.world, self.up)
        self.shared = shared or Shared()
        names = [one.name for one in tiers] or [""]
        self.fleet, backoff, events = Fleet(names), Backoff(names), Events(self.clock)
        times = StartTimes(None, 600.0)
        behavior = Behavior(Direction(), Direction(window_s=0.0))
        self.parts = Parts(
            pool=self.pool,
            decider=Decider(
                [self.wish, events, Activation()],
                Stabiliser(behavior),
                guardrails or Guardrails(Limits(least, most)),
                Tiers(tiers) if tiers else None,
            ),
            actuator=self.world,
            meter=Meter(self.pool, Metrics(), self.clock()),
            fleet=self.fleet,
            lives=Lives(
                self.pool,
                self.fleet,
                self.engines,
                Terms(
                    replace_after_s=1e6,  # nobody probes them here
                    warm_size=warm,
                    warm_by_sleep=sleep,
                    tiers={
                        one.name: TierTerms(one.worth, one.price_per_hour)
                        for one in tiers or (Tier("", price_per_hour=price),)
                    },
                ),
                announce=self._announce,
                times=times,
                backoff=backoff,
                clock=self.clock,
                have_left=lambda replica: self.shared.have_left(replica, self.clock()),
            ),
            times=times,
            backoff=backoff,
            leadership=Claim(crown or Crown()),
            events=events,
            queries=Queries({}, self.clock),
            decisions=Decisions("main"),
            keeper=Keeper("main", MemoryHistory(), lambda: 1e9 + self.clock()),
            most=most,
            shared=self.shared,
        )
        self.scaler = PoolScaler(
            self.parts,
            Pace(1.0, 0.0, 0.5),
            clock=self.clock,
            wall=lambda: 1e9 + self.clock(),
            paused=lambda: self.paused,
        )

    def _announce(self, specs: Sequence[BackendSpec]) -> None:
        known = {backend.id: backend for backend in self.pool.backends}
        self.pool.set_members([known.get(spec.id) or Backend(spec) for spec in specs], self.clock())

    async def rounds(self, count: int = 4, step_s: float = 1.0) -> None:
        for _ in range(count):
            self.clock.advance(step_s)
            await self.scaler.look()
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    @property
    def lives(self) -> dict[str, int]:
        return {stage.value: count for stage in Stage if (count := self.fleet.count(stage))}


async def test_up_and_down() -> None:
    scene = Scene()
    scene.wish.replicas = 3
    await scene.rounds()
    assert scene.lives == {"serving": 3}
    scene.wish.replicas = 1
    await scene.rounds()
    assert scene.lives == {"serving": 1}
    assert len(scene.world.running) == 1


async def test_a_busy_replica_drains_first_and_the_idle_go() -> None:
    scene = Scene()
    scene.wish.replicas = 2
    await scene.rounds()
    busy = scene.pool.backends[1]
    for _ in range(3):
        busy.load.enter()
    scene.pool.backends[0].load.enter()
    scene.wish.replicas = 0
    await scene.rounds()
    assert scene.lives == {"draining": 2}
    scene.pool.backends[0].load.leave()
    await scene.rounds()
    assert scene.lives == {"draining": 1}
    assert list(scene.world.running) == [busy.id]
    scene.wish.replicas = 1
    await scene.rounds()
    assert scene.lives == {"serving": 1}, "taken back instead of started anew"
    assert list(scene.world.running) == [busy.id]


async def test_the_last_holder_of_an_adapter_stays() -> None:
    scene = Scene()
    scene.wish.replicas = 3
    await scene.rounds()
    holder = scene.pool.backends[0]
    holder.gauges = Gauges(at=scene.clock(), loras=("sql",))
    for other in scene.pool.backends[1:]:
        other.gauges = Gauges(at=scene.clock(), loras=("chat",))
        other.load.enter()
    # Wherever prompts go on from earlier ones everybody has some.
    scene.parts.own_sessions = lambda now: {
        backend.id: 1 if backend is holder else 5 for backend in scene.pool.backends
    }
    scene.wish.replicas = 1
    await scene.rounds()
    assert [one.id for one in scene.fleet.at(Stage.SERVING)] == [holder.id]


async def test_who_has_sessions_stays_while_another_has_none() -> None:
    scene = Scene()
    scene.wish.replicas = 3
    await scene.rounds()
    has_most, idle, has_one = scene.pool.backends
    idle.load.enter()
    scene.parts.own_sessions = lambda now: {has_most.id: 5, has_one.id: 1}
    scene.wish.replicas = 2
    await scene.rounds()
    assert {one.id for one in scene.fleet.at(Stage.SERVING)} == {has_most.id, has_one.id}, "although it was at work"
    scene.wish.replicas = 1
    await scene.rounds()
    assert [one.id for one in scene.fleet.at(Stage.SERVING)] == [has_most.id], "where most would be lost"


async def test_a_replica_that_dies_is_replaced_and_one_that_dies_again_waits() -> None:
    scene = Scene()
    scene.wish.replicas = 1
    await scene.rounds()
    for _ in range(3):
        scene.world.running.clear()
        await scene.rounds(2, 0.1)
    made = scene.world.made
    assert scene.parts.backoff.wait_s(scene.clock()) > 0
    await scene.rounds(2, 0.1)
    assert scene.world.made == made
    await scene.rounds(4, 5.0)
    assert scene.lives == {"serving": 1}


async def test_the_warm_pool_counts_within_max() -> None:
    scene = Scene(most=3, warm=2)
    scene.wish.replicas = 1
    await scene.rounds(6)
    assert scene.lives == {"serving": 1, "standby": 2}
    scene.wish.replicas = 3
    await scene.rounds(6)
    assert scene.lives == {"serving": 3}
    assert scene.world.made == 3
    scene.wish.replicas = 1
    await scene.rounds(6)
    assert scene.lives == {"serving": 1, "standby": 2}
    assert scene.world.made == 3, "those that drained went to rest"


async def test_requests_at_zero_make_one_at_once() -> None:
    scene = Scene()
    await scene.rounds(2)
    assert scene.world.running == {}
    queue = scene.pool.queue
    queue.enter(queue.ticket(Request(), scene.pool.backends), scene.clock(), lambda ticket, reason: None)
    await scene.rounds(1, 0.1)
    assert len(scene.world.running) == 1


async def test_an_event_is_a_floor_for_a_while() -> None:
    scene = Scene()
    now = scene.clock()
    scene.parts.events.add(Event(3, now + 10, now + 20, "ops", "launch"))
    await scene.rounds(5)
    assert scene.lives == {}
    await scene.rounds(8)
    assert scene.lives == {"serving": 3}


async def test_an_event_lets_nobody_go() -> None:
    scene = Scene()
    scene.wish.replicas = 3
    await scene.rounds()
    scene.wish.replicas = None
    scene.parts.events.add(Event(1, scene.clock(), scene.clock() + 1000, "ops", "launch"))
    await scene.rounds(8)
    assert scene.lives == {"serving": 3}


async def test_why_nothing_changes_is_shown_too() -> None:
    scene = Scene(most=2)
    scene.wish.replicas = 2
    await scene.rounds()
    shown = len(scene.parts.decisions.shown())
    await scene.rounds(8)
    assert len(scene.parts.decisions.shown()) - shown <= 1, "what repeats itself is not kept"
    scene.wish.replicas = 5
    await scene.rounds()
    newest, *_ = scene.parts.decisions.shown()
    assert (newest["replicas"], newest["limits"]) == (2, ["max 2"])
    at = newest["at"]
    await scene.rounds(3)
    assert scene.parts.decisions.shown()[0]["at"] > at, "the latest is there, with its signals"


async def test_trouble_leaves_everything_as_it_is() -> None:
    scene = Scene()
    scene.wish.replicas = 2
    await scene.rounds()
    scene.world.fails = True
    scene.wish.replicas = 0
    await scene.rounds()
    assert len(scene.world.running) == 2
    assert [backend.status for backend in scene.pool.backends] != [Status.DRAINING] * 2
    scene.world.fails = False
    await scene.rounds(8)
    assert scene.world.running == {}


async def test_two_proxies_never_act_at_once_and_the_old_leader_not_at_all() -> None:
    world, crown = World(4), Crown()
    first, second = Scene(world=world, crown=crown), Scene(world=world, crown=crown)
    for scene in (first, second):
        scene.wish.replicas = 2
    await first.rounds()
    await second.rounds()
    assert {fence for _, _, fence in world.calls} == {1}
    assert second.lives == {"serving": 2}, "the other one knows them all the same"
    # It loses the lock between its decision and its act.
    crown.holder = second.parts.leadership
    crown.fence += 1
    calls = len(world.calls)
    first.wish.replicas = 4
    await first.rounds(1)
    assert len(world.calls) == calls
    second.wish.replicas = 3
    await second.rounds(6)
    assert len(world.running) == 3
    assert world.calls[-1][2] == 2


@pytest.mark.parametrize("seed", range(12))
async def test_no_input_gets_past_max_or_a_pause(seed: int) -> None:
    """`World.scale` refuses more than `max`; whatever is wished, dies, hangs or waits, it is never asked to."""
    rng = random.Random(seed)
    scene = Scene(least=rng.randrange(2), most=3, warm=rng.randrange(3))
    for _ in range(80):
        scene.wish.replicas = rng.choice([None, 0, 1, 2, 3, 50, 10**9])
        scene.paused = rng.random() < 0.2
        before = len(scene.world.calls)
        if rng.random() < 0.15 and scene.world.running:
            scene.world.running.pop(rng.choice(list(scene.world.running)))
        for backend in scene.pool.backends:
            if rng.random() < 0.3:
                backend.load.enter()
            elif backend.load.in_flight:
                backend.load.leave()
        if scene.pool.backends and rng.random() < 0.1:
            scene.parts.lives.hung(rng.choice(scene.pool.backends))
        await scene.rounds(1, rng.choice([0.1, 1.0, 40.0]))
        assert len(scene.world.running) <= 3
        if scene.paused:
            assert len(scene.world.calls) == before


async def test_while_paused_nobody_is_drained_for_being_unhealthy() -> None:
    scene = Scene()
    scene.wish.replicas = 1
    await scene.rounds()
    scene.parts.lives.terms = Terms(replace_after_s=60.0)
    [backend] = scene.pool.backends
    scene.paused = True
    loops = Autoscalers(Audit(None, scene.clock), scene.clock)
    loops.scalers["main"] = scene.scaler
    loops.pause("main", "ops", "")
    loops.hung("main", backend)
    scene.health.hung(backend, True, scene.clock())
    await scene.rounds(4, 60.0)
    assert scene.lives == {"serving": 1}
    scene.paused = False
    await scene.rounds(1)
    assert backend.id not in [one.id for one in scene.fleet.at(Stage.SERVING)], "replaced once it may be"


async def test_what_a_proxy_takes_over_was_wanted_when_it_began() -> None:
    scene = Scene()
    scene.world.running = {f"r{n}": Instance(f"r{n}", f"http://127.0.0.1:{9000 + n}", age_s=60.0) for n in range(3)}
    scene.parts.decider = Decider([scene.wish], Stabiliser(Behavior()), Guardrails(Limits(0, 4)))
    scene.wish.replicas = 1
    await scene.rounds(290)
    assert len(scene.world.running) == 3, "for as long as the window is, as if it had been here"
    await scene.rounds(20)
    assert len(scene.world.running) == 1
    # Other settings look back on nothing, too.
    scene.wish.replicas = 3
    await scene.rounds()
    scene.parts.decider = Decider([scene.wish], Stabiliser(Behavior()), Guardrails(Limits(0, 4)))
    scene.wish.replicas = 1
    await scene.rounds(290)
    assert len(scene.world.running) == 3
    await scene.scaler.stop()


async def test_a_start_that_is_refused_has_failed(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    scene.world.refuses = True
    scene.wish.replicas = 1
    await scene.rounds(3)
    assert scene.parts.lives.starts["failed"] == 2, "the second one at once, and then there is a pause"
    assert [line for line in caplog.messages if "again" in line] == []
    assert sum("cannot be brought to 1 replicas" in line for line in caplog.messages) == 1
    scene.world.refuses = False
    await scene.rounds(5)
    assert len(scene.world.running) == 1
    scene.world.refuses = True
    scene.wish.replicas = 0
    await scene.rounds(3)
    assert scene.parts.lives.starts["failed"] == 2, "what could not be stopped is none"
    await scene.scaler.stop()


async def test_of_a_full_pool_the_warm_pool_takes_nobodys_place() -> None:
    tiers = (Tier("a", max=2, price_per_hour=1.0), Tier("b", price_per_hour=2.0))
    scene = Scene(most=4, warm=1, tiers=tiers)
    scene.wish.replicas = 4
    await scene.rounds(20, 1.0)
    assert scene.lives == {"serving": 4}
    assert {tier: scene.fleet.staying(tier) for tier in "ab"} == {"a": 2, "b": 2}
    made = scene.world.made
    await scene.rounds(20, 1.0)
    assert scene.world.made == made, "nobody is started to be stopped at the next look"


async def test_a_stop_that_was_refused_keeps_no_start_waiting() -> None:
    scene = Scene()
    scene.wish.replicas = 2
    await scene.rounds(4)
    scene.world.refuses = True
    scene.wish.replicas = 1
    await scene.rounds(20, 0.5)
    scene.world.refuses = False
    scene.wish.replicas = 4
    await scene.rounds(8, 0.5)
    assert scene.lives == {"serving": 4}
