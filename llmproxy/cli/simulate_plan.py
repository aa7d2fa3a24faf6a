"""From the command line to an experiment, with everything that is wrong with it said in words."""

import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import TypeVar

from llmproxy.config import ConfigError, PoolConfig, load
from llmproxy.config.units import parse_duration
from llmproxy.policies import check_policy
from llmproxy.policy.admission.deadline import Slo as AdmissionSlo
from llmproxy.policy.admission.options import AdmissionOptions
from llmproxy.policy.routing.options import OptionError, suggestion
from llmproxy.settings import admission_options
from llmproxy.sim.backends import SimulatedBackend, configured_backends, parse_backends, with_limits_of
from llmproxy.sim.contender import Contender
from llmproxy.sim.experiment import Case, Experiment, cases, fitting
from llmproxy.sim.profile import Profile, read_profile
from llmproxy.sim.score import Slo, parse_slo
from llmproxy.sim.trace import clock_tick_s
from llmproxy.sim.traces import Trace, TraceError, read_trace

T = TypeVar("T")

_BACKENDS_DEFAULT = "8"


class Unusable(Exception):
    """What the user asked for cannot be done; the message says why."""


@dataclass(frozen=True, slots=True)
class Choices:
    """The options as they were typed."""

    trace: Path
    config: Path | None
    pool: str | None
    policies: tuple[str, ...]
    backends: str | None
    loads: str
    seeds: int
    limit: int
    jitter: str
    slo: str
    admission: str | None
    profile: Path | None
    outputs: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be run. `unfit` requests of the trace need more KV blocks than a backend has."""

    experiment: Experiment
    cases: list[Case]
    trace: Trace
    unfit: int
    seeds: int
    slo: str

    @property
    def policies(self) -> list[str]:
        """In the order they were named."""
        return list(dict.fromkeys(case.policy.name for case in self.cases))

    @property
    def loads(self) -> list[float]:
        return list(dict.fromkeys(case.load for case in self.cases))


def plan(choices: Choices) -> Plan:
    """Raises `Unusable`, before anything is run."""
    name, pool = _pool(choices)
    policies = _policies(choices.policies, pool)
    backends = _backends(choices.backends, name, pool)
    profile = _profile(choices.profile)
    slo = _option("--slo", parse_slo, choices.slo)
    loads = _option("--load", _loads, choices.loads)
    for path in choices.outputs:
        if path.is_dir() or not path.absolute().parent.is_dir():
            raise Unusable(f"{path}: there is no folder to write it to, or it is a folder itself")
    try:
        trace = read_trace(choices.trace, choices.limit or None, choices.pool)
    except TraceError as error:
        raise Unusable(str(error)) from None
    fits = fitting(trace.arrivals, profile)
    if not fits:
        raise Unusable(f"{choices.trace}: no request fits into the {profile.kv_tokens:,} tokens of a KV cache")
    automatic = choices.jitter == "auto"
    experiment = Experiment(
        trace=fits,
        backends=backends,
        profile=profile,
        slo=slo,
        jitter_s=clock_tick_s(fits) if automatic else _option("--jitter", parse_duration, choices.jitter),
    )
    experiment = replace(experiment, admission=_admission(choices, pool, backends, slo))
    return Plan(
        experiment,
        cases(policies, loads, choices.seeds),
        trace,
        len(trace.arrivals) - len(fits),
        choices.seeds,
        choices.slo,
    )


def _admission(
    choices: Choices, pool: PoolConfig | None, backends: Sequence[SimulatedBackend], slo: Slo
) -> AdmissionOptions | None:
    """What the pool says, with the objectives of --slo where it has none. Switched off, requests wait only where
    there is a `max_concurrency`, as they come."""
    if choices.admission not in (None, "on", "off"):
        raise Unusable(f"--admission: {choices.admission!r} is neither on nor off")
    options = AdmissionOptions() if pool is None else admission_options(pool)
    if choices.admission == "off" or (choices.admission is None and pool is None):
        if all(backend.max_concurrency is None for backend in backends):
            return None
        return AdmissionOptions(bounds=options.bounds, backlog_s=0.0)
    if choices.admission == "on" and options.slo == AdmissionSlo():
        options = replace(options, slo=AdmissionSlo(slo.ttft_s, slo.ttft_scaled, slo.tpot_s))
    return options


def _pool(choices: Choices) -> tuple[str, PoolConfig | None]:
    if choices.config is None:
        return "", None
    try:
        pools = load(choices.config, check_policy=check_policy).pools
    except ConfigError as error:
        raise Unusable(str(error)) from None
    name = choices.pool
    if name is None:
        if len(pools) > 1:
            raise Unusable(f"{choices.config} has several pools: say which with --pool ({', '.join(pools)})")
        name = next(iter(pools))
    if name not in pools:
        raise Unusable(f"--pool: {choices.config} has no pool {name!r}{suggestion(name, pools)}")
    return name, pools[name]


def _policies(typed: Sequence[str], pool: PoolConfig | None) -> list[Contender]:
    names = list(dict.fromkeys(name.strip() for part in typed for name in part.split(",")))
    if not names:
        if pool is None:
            raise Unusable("nothing to compare: name policies with --policy, or give a --config")
        return [Contender(pool.policy.name, pool.policy.options)]
    if any(":" in name for name in names) and os.getcwd() not in sys.path:
        # As `python -m` does: classes in the working directory can be named.
        sys.path.insert(0, os.getcwd())
    contenders = []
    for name in names:
        own = pool is not None and pool.policy.name == name
        contender = Contender(name, pool.policy.options if own and pool is not None else {})
        try:
            contender.build(Random(0))  # noqa: S311
        except OptionError as error:
            raise Unusable(f"--policy: {error}") from None
        except Exception as error:
            raise Unusable(f"--policy: {name} cannot be made: {type(error).__name__}: {error}") from error
        contenders.append(contender)
    return contenders


def _backends(typed: str | None, name: str, pool: PoolConfig | None) -> tuple[SimulatedBackend, ...]:
    if typed is None and pool is not None:
        return configured_backends(name, pool)
    backends = _option("--backends", parse_backends, typed or _BACKENDS_DEFAULT)
    return backends if pool is None else with_limits_of(pool, backends)


def _profile(path: Path | None) -> Profile:
    if path is None:
        return Profile()
    try:
        return read_profile(path)
    except ValueError as error:
        raise Unusable(str(error)) from None


def _loads(text: str) -> list[float]:
    loads = []
    for part in text.split(","):
        try:
            load = float(part)
        except ValueError:
            load = math.nan
        if not math.isfinite(load) or load <= 0:
            raise ValueError(f"{part.strip()!r} is not a factor such as 0.9")
        loads.append(load)
    return list(dict.fromkeys(loads))


def _option(name: str, parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise Unusable(f"{name}: {error}") from None
