"""What is tried of each rival: everything its users can set that matters here."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

from llmproxy.sim.scaling.rivals.hpa import HpaOptions
from llmproxy.sim.scaling.rivals.keda import KedaOptions
from llmproxy.sim.scaling.rivals.kpa import KpaOptions


@dataclass(frozen=True, slots=True)
class Entry:
    """A rival with options."""

    rival: str
    options: Any


GRIDS: Final[Mapping[str, tuple[type[Any], Mapping[str, tuple[float, ...]]]]] = {
    "hpa": (
        HpaOptions,
        {
            "target": (0.65, 0.7, 0.72, 0.74, 0.76, 0.8, 0.85),
            "down_window_s": (60.0, 120.0, 150.0, 300.0),
            "metric_s": (15, 60),
            "tolerance": (0.1, 0.05),
        },
    ),
    "kpa": (
        KpaOptions,
        {
            "target": (0.5, 0.55, 0.6, 0.65, 0.7, 0.8),
            "panic_threshold": (1.5, 2.0),
            "stable_window_s": (60, 120, 300),
        },
    ),
    "kpa_delayed": (KpaOptions, {"target": (0.6, 0.65, 0.7, 0.75), "scale_down_delay_s": (120.0, 300.0, 600.0)}),
    "keda": (
        KedaOptions,
        {"threshold": (1.0, 4.0, 16.0, 64.0), "minimum": (13, 16, 20, 24, 28), "down_window_s": (60.0, 300.0)},
    ),
}
"""`kpa` has no delay for scaling down, as it comes; `kpa_delayed` is given one."""
QUICK: Final = 3


def entries(rival: str, quick: bool) -> Iterator[Entry]:
    """All combinations; `quick`: every third."""
    kind, grid = GRIDS[rival]
    for number, values in enumerate(product(*grid.values())):
        if not quick or number % QUICK == 0:
            yield Entry(rival, kind(**dict(zip(grid, values, strict=True))))
