"""Several sources' readings as one `Gauges`."""

from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any, Final

from llmproxy.core.backend import Gauges

_LASTING: Final = ("kv_tokens", "models")
"""Facts about the server, not measurements: they stay known when nothing else is."""
_APART: Final = ("at", "max_age_s", "gpu", *_LASTING)
_MEASURED: Final = tuple(field.name for field in fields(Gauges) if field.name not in _APART)


def merge(readings: Iterable[Gauges], before: Gauges | None, now: float, max_age_s: float) -> Gauges | None:
    """The readings that still count, as one: of each field what the first says who says something. `at` is the time of
    the oldest that says anything of the engine; a GPU's gauges have their own. None when none counts any more."""
    fresh = [reading for reading in readings if now - reading.at <= max_age_s]
    if not fresh:
        return None
    values: dict[str, Any] = {}
    at = []
    for reading in fresh:
        said = {name: value for name in _MEASURED if (value := getattr(reading, name)) is not None}
        if said or reading.gpu is None:
            at.append(reading.at)
        values = said | values
    lasting = [*fresh, *([before] if before is not None else [])]
    return replace(
        Gauges(min(at) if at else max(reading.at for reading in fresh), max_age_s=max_age_s, **values),
        gpu=next((reading.gpu for reading in fresh if reading.gpu is not None), None),
        kv_tokens=next((one.kv_tokens for one in lasting if one.kv_tokens is not None), None),
        models=next((one.models for one in lasting if one.models), ()),
    )
