"""Gauges that are recent enough to decide by. Stale means unknown, never zero."""

from collections.abc import Callable, Sequence

from llmproxy.core.backend import Backend, Gauges

Reading = Callable[[Gauges], float | None]


def fresh(backend: Backend, now: float, max_age_s: float) -> Gauges | None:
    """The backend's gauges, unless they are older than `max_age_s`."""
    gauges = backend.gauges
    return gauges if gauges is not None and now - gauges.at <= max_age_s else None


def known_or_typical(
    candidates: Sequence[Backend], reading: Reading, now: float, max_age_s: float, otherwise: float
) -> list[float]:
    """One gauge of each candidate; who says nothing counts as the mean of those who do, or as `otherwise`."""
    found: list[float | None] = []
    total, count = 0.0, 0
    for backend in candidates:
        gauges = fresh(backend, now, max_age_s)
        value = None if gauges is None else reading(gauges)
        found.append(value)
        if value is not None:
            total += value
            count += 1
    typical = total / count if count else otherwise
    return [typical if value is None else value for value in found]
