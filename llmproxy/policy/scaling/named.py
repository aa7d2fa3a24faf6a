"""The signals by the names that conditions, tables and targets use, with what each counts."""

from collections.abc import Callable, Mapping
from typing import Final

from llmproxy.policy.scaling.base import Signals
from llmproxy.policy.scaling.options import suggestion
from llmproxy.policy.scaling.quantities import duration_s, share
from llmproxy.policy.scaling.tokens import Unit

QUERY_PREFIX: Final = "prometheus."
"""`prometheus.NAME` is the answer of the query that the configuration calls NAME."""
PER_REPLICA: Final = "_per_replica"

_Read = Callable[[Signals], float | None]


def _per_replica(total: _Read) -> _Read:
    """Of each replica that serves; unknown while none does."""

    def read(signals: Signals) -> float | None:
        found = total(signals)
        return found / signals.ready if found is not None and signals.ready else None

    return read


def _queue_depth(signals: Signals) -> float | None:
    return signals.queue_depth


def _in_flight(signals: Signals) -> float | None:
    return signals.in_flight


def _requests_per_s(signals: Signals) -> float | None:
    return signals.demand.last_10s.requests_per_s


_SIGNALS: Final[Mapping[str, tuple[Unit, _Read]]] = {
    "queue_depth": (Unit.PLAIN, _queue_depth),
    "queue_depth_per_replica": (Unit.PLAIN, _per_replica(_queue_depth)),
    "queue_wait": (Unit.SECONDS, lambda signals: signals.queue_wait_s),
    "in_flight": (Unit.PLAIN, _in_flight),
    "in_flight_per_replica": (Unit.PLAIN, _per_replica(_in_flight)),
    "requests_per_s": (Unit.PLAIN, _requests_per_s),
    "requests_per_s_per_replica": (Unit.PLAIN, _per_replica(_requests_per_s)),
    "prompt_tokens_per_s": (Unit.PLAIN, lambda signals: signals.prompt_tokens_per_s),
    "generated_tokens_per_s": (Unit.PLAIN, lambda signals: signals.generated_tokens_per_s),
    "p50_ttft": (Unit.SECONDS, lambda signals: signals.ttft.p50_s),
    "p95_ttft": (Unit.SECONDS, lambda signals: signals.ttft.p95_s),
    "p99_ttft": (Unit.SECONDS, lambda signals: signals.ttft.p99_s),
    "p50_latency": (Unit.SECONDS, lambda signals: signals.e2e.p50_s),
    "p95_latency": (Unit.SECONDS, lambda signals: signals.e2e.p95_s),
    "p99_latency": (Unit.SECONDS, lambda signals: signals.e2e.p99_s),
    "error_rate": (Unit.SHARE, lambda signals: signals.error_rate),
    "shed_rate": (Unit.SHARE, lambda signals: signals.shed_rate),
    "slo_miss_rate": (Unit.SHARE, lambda signals: signals.slo_miss_rate),
    "gpu_utilization": (Unit.SHARE, lambda signals: signals.gpu_utilization),
    "gpu_memory": (Unit.SHARE, lambda signals: signals.gpu_memory),
    "kv_usage": (Unit.SHARE, lambda signals: signals.kv_usage),
    "cpu": (Unit.SHARE, lambda signals: signals.cpu),
    "memory": (Unit.SHARE, lambda signals: signals.memory),
    "cold_start": (Unit.SECONDS, lambda signals: signals.cold_start_s),
    "replicas": (Unit.PLAIN, lambda signals: float(signals.actual)),
    "ready": (Unit.PLAIN, lambda signals: float(signals.ready)),
    "starting": (Unit.PLAIN, lambda signals: float(signals.starting)),
    "sleeping": (Unit.PLAIN, lambda signals: float(signals.sleeping)),
}


class _Units(dict[str, Unit]):
    """What each name counts; names of queries are made as they are asked for."""

    def get(self, name: str, default: object = None) -> Unit | None:  # type: ignore[override]
        return Unit.ANY if name.startswith(QUERY_PREFIX) else super().get(name)


def units() -> Mapping[str, Unit]:
    """Every signal's name and what it counts; any `prometheus.NAME` is one too."""
    return _Units({name: unit for name, (unit, _) in _SIGNALS.items()})


def value_of(signals: Signals, name: str) -> float | None:
    """The signal `name` in `signals`; None when it is unknown. KeyError for a name that `units` does not have."""
    if name.startswith(QUERY_PREFIX):
        wanted = name.removeprefix(QUERY_PREFIX)
        return next((value for query, value in signals.queries if query == wanted), None)
    found = _SIGNALS[name][1](signals)
    return None if found is None else float(found)


def amount(value: object) -> tuple[float, Unit]:
    """Reads an option that a signal is compared with: `24`, `70%`, `800ms`; a plain number may be a time in seconds, or
    a share. ValueError in words that follow the option's name."""
    if isinstance(value, str) and value.strip().endswith("%"):
        return share(value), Unit.SHARE
    found = duration_s(value)
    plain = not isinstance(value, str) or value.strip().replace(".", "", 1).isdecimal()
    return found, Unit.PLAIN if plain else Unit.SECONDS


def check_amount(signal: str, found: tuple[float, Unit]) -> None:
    """ValueError where the signal never is anything like it."""
    (value, unit), counts = found, units().get(signal)
    if counts in (Unit.ANY, unit) or (unit is Unit.PLAIN and counts is Unit.SECONDS):
        return
    if counts is Unit.SHARE and unit is Unit.PLAIN:
        if value <= 1:
            return
        raise ValueError(f"{signal} is a share: write {value:g}%, not {value:g}")
    assert counts is not None
    raise ValueError(f"{signal} is {counts.value}, and is compared with {unit.value}")


def known_signal(value: object) -> str:
    """Reads an option that names a signal. ValueError in words that follow the option's name."""
    known = units()
    if isinstance(value, str) and known.get(value) is not None:
        return value
    raise ValueError(f"{value!r} is no signal{suggestion(str(value), [*known, f'{QUERY_PREFIX}NAME'])}")
