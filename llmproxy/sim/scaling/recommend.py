"""What a pool could change, and how many replica-hours that saves at the same service: its own traffic, replayed
through the production objects with its own settings, and again with each of them changed.

A change is recommended when it saves hours and the share of requests in time stays at the objective, or, where the
objective is missed already, as good as it is. Changes are tried one at a time; those that help are then put together,
the one that saves most first, as far as they still hold together.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any, Final

from llmproxy.policy.scaling.guardrails import Limits
from llmproxy.policy.scaling.money import Budget
from llmproxy.policy.scaling.quantities import duration_s, share
from llmproxy.policy.scaling.stabiliser import Behavior
from llmproxy.sim.scaling.fleet import Fleet, Model
from llmproxy.sim.scaling.ours import Ours
from llmproxy.sim.scaling.race import replay

WORTH_SAYING: Final = 0.005
"""A change that saves less than this share of the hours is none."""
_WINDOWS_S: Final = (60.0, 120.0, 180.0)
_TARGETS: Final = (0.95, 0.9)
_Z: Final = 0.5
_HOUR_S: Final = 3600
_AHEAD_H: Final = 1
"""A busy hour's floor begins so much before it."""


@dataclass(frozen=True, slots=True)
class Setup:
    """How a pool is scaled, as far as the simulator knows it. `policies`: names and options, as configured."""

    policies: tuple[tuple[str, Any], ...]
    least: int
    most: int
    behavior: Behavior = field(default_factory=Behavior)
    changes_per_hour: int | None = None
    budget: Budget | None = None


@dataclass(frozen=True, slots=True)
class Played:
    """`late`: requests that waited too long, by hour of the day (UTC); `at_most`: share of the time at `max`."""

    slo_attained: float
    replica_hours: float
    late: tuple[float, ...] = ()
    at_most: float = 0.0


@dataclass(frozen=True, slots=True)
class Recommendation:
    """`change` in the words of the configuration."""

    change: str
    saved_hours: float
    slo_attained: float
    setup: Setup


@dataclass(frozen=True, slots=True)
class Advice:
    """`each` alone, the one that saves most first; `together`: as many of them as hold together."""

    now: Played
    floor: float
    each: tuple[Recommendation, ...]
    together: Recommendation | None


_Change = Callable[[Setup], Setup]


def play(setup: Setup, model: Model, traffic: Sequence[int], unix_s: float) -> Played:
    """One replay. It begins with what its first minute needs at 70 %."""
    model = replace(model, replicas_min=setup.least, replicas_max=setup.most)
    limits = Limits(setup.least, setup.most, setup.changes_per_hour, setup.budget)
    ours = Ours(model, setup.policies, unix_s, limits, setup.behavior)
    first = sum(traffic[:60]) / max(min(len(traffic), 60), 1)
    fleet = Fleet(model, min(max(ceil(first / (0.7 * model.begins_per_s)), setup.least), setup.most))
    late, at_most, at = [0.0] * 24, 0, 0
    while at < len(traffic):
        hour, rest = divmod(int(unix_s) + at, _HOUR_S)
        until = min(at + _HOUR_S - rest, len(traffic))
        before = fleet.judged - fleet.in_time
        replay(fleet, ours, traffic[at:until])
        late[hour % 24] += (fleet.judged - fleet.in_time) - before
        at_most += (until - at) * (fleet.ready + fleet.starting >= setup.most)
        at = until
    fleet.finish()
    return Played(fleet.attained, fleet.replica_hours, tuple(late), at_most / max(len(traffic), 1))


def recommend(
    setup: Setup, model: Model, traffic: Sequence[int], *, unix_s: float = 0.0, objective: float = 0.995
) -> Advice:
    """`unix_s`: when the traffic began, for what goes by the calendar."""
    now = play(setup, model, traffic, unix_s)
    floor = min(objective, now.slo_attained)
    found: list[tuple[Recommendation, _Change]] = []

    def attempt(change: str, apply: _Change, to: Setup = setup, hours: float = now.replica_hours) -> Played:
        changed = apply(to)
        played = play(changed, model, traffic, unix_s)
        saved = hours - played.replica_hours
        if played.slo_attained >= floor and saved >= WORTH_SAYING * now.replica_hours:
            found.append((Recommendation(change, saved, played.slo_attained, changed), apply))
        return played

    for group in _changes(setup):
        for change, apply in group:
            count = len(found)
            attempt(change, apply)
            if len(found) > count:
                # Those behind it are milder ones of its kind.
                break
    _lower_min(setup, attempt, floor)
    found.sort(key=lambda one: -one[0].saved_hours)
    each = tuple(one for one, _ in found)
    together = each[0] if each else None
    for one, apply in found[1:]:
        assert together is not None
        base, count = together, len(found)
        attempt(f"{base.change}; {one.change}", apply, base.setup, now.replica_hours - base.saved_hours)
        if len(found) > count:
            better, _ = found.pop()
            together = replace(better, saved_hours=base.saved_hours + better.saved_hours)
    return Advice(now, floor, each, together if len(each) > 1 else None)


def _changes(setup: Setup) -> Iterator[list[tuple[str, _Change]]]:
    """Kinds of changes, in each the boldest first."""
    names = [name for name, _ in setup.policies]
    down, has_demand = setup.behavior.down, "demand" in names
    yield [
        (
            f"behavior: {{down: {{window: {window_s:g}s}}}}"
            + (f", demand: {{hold: {window_s:g}s}}" if has_demand else ""),
            _window(window_s),
        )
        for window_s in _WINDOWS_S
        if window_s < down.window_s
    ]
    if down.max_step is not None:
        yield [("behavior: {down: {max_step: none}}", lambda one: _down(one, max_step=None))]
    if not has_demand:
        return
    yield [
        (f"demand: {{target: {target:.0%}}}", _demand("target", target))
        for target in _TARGETS
        if target > _option(setup, "demand", "target", 0.85)
    ]
    if _option(setup, "demand", "z", 1.0) > _Z:
        yield [(f"demand: {{z: {_Z:g}}}", _demand("z", _Z))]
    if "forecast" not in names:
        yield [
            (
                "policies: forecast beside demand",
                lambda one: replace(one, policies=(*one.policies, ("forecast", {}))),
            )
        ]
    for name in names:
        if name != "demand":
            yield [(f"policies: without {name}", _without(name))]


def _lower_min(setup: Setup, attempt: Callable[..., Played], floor: float) -> None:
    """The lowest `min` that still does; where only some hours of the day need it, a schedule for those."""
    if setup.least <= 1:
        return
    lowest = attempt("min: 1", lambda one: replace(one, least=1))
    if lowest.slo_attained >= floor:
        return
    low, high = 1, setup.least
    while high - low > 1:
        middle = (low + high) // 2
        played = attempt(f"min: {middle}", lambda one, to=middle: replace(one, least=to))
        low, high = (low, middle) if played.slo_attained >= floor else (middle, high)
    worst = sorted(range(24), key=lambda hour: -lowest.late[hour])
    total = sum(lowest.late)
    for most in (0.8, 0.95):
        hours: list[int] = []
        for hour in worst:
            if sum(lowest.late[each] for each in hours) < most * total:
                hours.append(hour)
        if len(hours) < 18:
            entries = _schedule(hours, setup.least)
            said = "; ".join(f"{entry['cron']}: min {entry['min']}" for entry in entries)
            attempt(f"min: 1, with a schedule (UTC): {said}", _scheduled(entries))


def _schedule(hours: Sequence[int], least: int) -> list[Mapping[str, Any]]:
    """Entries of `schedule`: `least` in these hours and the one before each, 1 in the others."""
    busy = {(hour - ahead) % 24 for hour in hours for ahead in range(_AHEAD_H + 1)}
    return [
        {"cron": f"0 {hour} * * *", "min": least if hour in busy else 1}
        for hour in range(24)
        if (hour in busy) != ((hour - 1) % 24 in busy)
    ]


def _scheduled(entries: Sequence[Mapping[str, Any]]) -> _Change:
    return lambda one: replace(one, least=1, policies=(*one.policies, ("schedule", list(entries))))


def _window(window_s: float) -> _Change:
    def apply(one: Setup) -> Setup:
        changed = _down(one, window_s=window_s)
        held = _option(one, "demand", "hold", 300.0)
        return _demand("hold", min(window_s, held))(changed) if "demand" in dict(one.policies) else changed

    return apply


def _down(setup: Setup, **changes: Any) -> Setup:
    behavior = setup.behavior
    return replace(setup, behavior=Behavior(behavior.up, replace(behavior.down, **changes)))


def _demand(name: str, value: float) -> _Change:
    def apply(one: Setup) -> Setup:
        policies = [
            (policy, {**(options or {}), name: value}) if policy == "demand" else (policy, options)
            for policy, options in one.policies
        ]
        return replace(one, policies=tuple(policies))

    return apply


def _without(name: str) -> _Change:
    return lambda one: replace(one, policies=tuple(policy for policy in one.policies if policy[0] != name))


def _option(setup: Setup, policy: str, name: str, otherwise: float) -> float:
    """A number, or what is written as a share or a duration."""
    options = next((options for one, options in setup.policies if one == policy), None) or {}
    value = options.get(name, otherwise) if isinstance(options, Mapping) else otherwise
    return duration_s(value) if name == "hold" else share(value)
