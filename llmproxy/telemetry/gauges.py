"""What backends and GPUs say of themselves, as metrics. What is unknown, or too old to count, has no row."""

from collections.abc import Callable, Iterable
from typing import Final

from llmproxy.core.backend import Gauges, GpuGauges
from llmproxy.core.clock import Clock
from llmproxy.telemetry.gpu import GPU
from llmproxy.telemetry.metrics import PoolView

Rows = dict[tuple[str, ...], float]
"""By pool and backend."""


_ENGINE: Final[dict[str, Callable[[Gauges], float | None]]] = {
    "llmproxy_backend_running": lambda gauges: gauges.running,
    "llmproxy_backend_waiting": lambda gauges: gauges.waiting,
    "llmproxy_backend_kv_usage_ratio": lambda gauges: gauges.kv_usage,
    "llmproxy_backend_kv_tokens": lambda gauges: gauges.kv_tokens,
}


def readers(pools: Callable[[], Iterable[PoolView]], clock: Clock) -> dict[str, Callable[[], Rows]]:
    """A reader for each of these metrics, by name: to be handed to `Metrics.read`."""
    engine = {name: _engine_reader(value, pools, clock) for name, value in _ENGINE.items()}
    gpu = {f"llmproxy_backend_{metric.name}": _gpu_reader(metric.value, pools, clock) for metric in GPU}
    return engine | gpu | {"llmproxy_backend_gauges_age_seconds": _age_reader(pools, clock)}


def _engine_reader(
    value: Callable[[Gauges], float | None], pools: Callable[[], Iterable[PoolView]], clock: Clock
) -> Callable[[], Rows]:
    def read() -> Rows:
        now = clock()
        rows: Rows = {}
        for pool in pools():
            for backend in pool.backends:
                gauges = backend.known(now)
                found = value(gauges) if gauges is not None else None
                if found is not None:
                    rows[pool.name, backend.id] = float(found)
        return rows

    return read


def _gpu_reader(
    value: Callable[[GpuGauges], float | None], pools: Callable[[], Iterable[PoolView]], clock: Clock
) -> Callable[[], Rows]:
    def read() -> Rows:
        now = clock()
        rows: Rows = {}
        for pool in pools():
            for backend in pool.backends:
                gpu = backend.gauges.fresh_gpu(now) if backend.gauges is not None else None
                found = value(gpu) if gpu is not None else None
                if found is not None:
                    rows[pool.name, backend.id] = float(found)
        return rows

    return read


def _age_reader(pools: Callable[[], Iterable[PoolView]], clock: Clock) -> Callable[[], Rows]:
    def read() -> Rows:
        now = clock()
        return {
            (pool.name, backend.id): now - backend.gauges.at
            for pool in pools()
            for backend in pool.backends
            if backend.gauges is not None
        }

    return read
