"""Budget, max and pause hold for any signals and any opinions."""

from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.policy.scaling.base import Demand, Rates, Signals, Wanted
from llmproxy.policy.scaling.calendar_month import hour_of, month_of
from llmproxy.policy.scaling.decision import Decider
from llmproxy.policy.scaling.guardrails import Guardrails, Limits
from llmproxy.policy.scaling.money import Budget
from llmproxy.policy.scaling.registry import build
from llmproxy.policy.scaling.stabiliser import Behavior, Direction, Stabiliser

figure = st.none() | st.floats(0, 1e9)
rates = st.builds(Rates, figure, figure, figure)
wanted = st.none() | st.integers(-5, 10**6)
direction = st.builds(
    Direction, st.sampled_from((0.0, 30.0, 300.0)), st.none() | st.integers(1, 5), st.sampled_from((30.0, 120.0))
)
# A budget is kept as long as decisions lie an hour apart at most, and what one lets go is gone by the second after it.
moments = st.lists(
    st.tuples(
        st.just(3600.0) | st.floats(0.1, 3600),
        wanted,
        st.builds(Demand, rates, rates, rates),
        rates,
        st.none() | st.integers(0, 10**6),
        st.none() | st.floats(0, 1),
        st.integers(0, 3),
        st.booleans(),
    ),
    min_size=1,
    max_size=40,
)


class Any:
    options_type = dict
    said = None

    def want(self, signals, now):
        return None if self.said is None else Wanted(self.said, "because", "any")


class World:
    """An actuator that obeys; some of what it lets go drains for one moment longer."""

    def __init__(self, limits, behavior, unix_s):
        self.any = Any()
        policies = [self.any, build("demand", {}), build("forecast", {})]
        self.decider = Decider(policies, Stabiliser(behavior), Guardrails(limits))
        self.now, self.unix_s = 0.0, unix_s
        self.ready = self.starting = self.draining = self.let_go = 0

    def step(self, moment):
        passed, self.any.said, demand, sustainable, queue, misses, slow, self.decider.guardrails.paused = moment
        self.now += passed
        self.unix_s += passed
        self.draining, self.let_go = min(self.let_go, slow), 0
        self.ready, self.starting = self.ready + max(self.starting - slow, 0), min(self.starting, slow)
        signals = Signals(
            now=self.now,
            unix_s=self.unix_s,
            ready=self.ready,
            starting=self.starting,
            draining=self.draining,
            demand=demand,
            sustainable=sustainable,
            queue_depth=queue,
            slo_miss_rate=misses,
            kv_usage=misses,
        )
        decision = self.decider.decide(signals, self.now)
        change = decision.change
        self.decider.done(change, self.now)
        if change > 0:
            self.starting += change
        else:
            gone = min(-change, self.starting)
            self.starting -= gone
            self.ready -= -change - gone
            self.let_go = -change - gone
        return decision

    @property
    def existing(self):
        return self.ready + self.starting + self.draining + self.let_go


@settings(max_examples=150, deadline=None)
@given(moments, direction, direction, st.integers(0, 5), st.integers(0, 20))
def test_max_is_never_exceeded_and_a_pause_changes_nothing(steps, up, down, least, more):
    limits = Limits(least, least + more)
    world = World(limits, Behavior(up, down), 1e9)
    for moment in steps:
        before = world.ready + world.starting
        decision = world.step(moment)
        assert decision.replicas >= 0
        assert world.ready + world.starting <= limits.max
        if moment[-1]:
            assert decision.change == 0
            assert world.ready + world.starting == before


@settings(max_examples=150, deadline=None)
@given(
    moments,
    st.integers(0, 5),
    st.integers(0, 20),
    st.floats(0.1, 50),
    st.none() | st.floats(0, 200),
    st.none() | st.floats(0, 2000),
    st.floats(0, 40 * 86400),
)
def test_a_budget_is_never_exceeded(steps, least, more, price, per_hour, per_month, begins):
    budget = Budget(price, per_hour, per_month)
    world = World(Limits(least, least + more, budget=budget), Behavior(down=Direction()), begins)
    hours, months = {}, {}
    for moment in steps:
        passed, *others = moment
        at, ends = world.unix_s, world.unix_s + passed
        while at < ends:
            # A pause is the operator's: what runs then goes on, and is not ours to count.
            until = min(hour_of(at)[1], month_of(at)[1], ends)
            for key, spent in ((hour_of(at)[0], hours), (month_of(at)[0], months)):
                spent[key] = spent.get(key, 0.0) + world.existing * price * (until - at) / 3600
            at = until
        world.step((passed, *others[:-1], False))
    slack = 1 + 1e-6
    assert per_hour is None or all(spent <= per_hour * slack + 1e-6 for spent in hours.values())
    assert per_month is None or all(spent <= per_month * slack + 1e-6 for spent in months.values())
