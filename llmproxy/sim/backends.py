"""The backends of a replay: as the command line says (`8`, `2@2.2,6@1.0`), or as many as a pool is configured with."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from llmproxy.config.model import PoolConfig
from llmproxy.sim.fleet import Server
from llmproxy.sim.profile import Profile

BACKENDS_MAX: Final = 1024
_GROUP = re.compile(r"(\d{1,4})(?:@(\d{1,6}(?:\.\d{1,6})?))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class SimulatedBackend:
    """`speed` relative to the profile's engine."""

    id: str
    speed: float = 1.0
    weight: float = 1.0
    max_concurrency: int | None = None

    def server(self, profile: Profile) -> Server:
        """A new one, idle."""
        engine = profile if self.speed == 1.0 else profile.at(self.speed)
        return Server(self.id, engine, self.weight, self.max_concurrency)


def parse_backends(text: str) -> tuple[SimulatedBackend, ...]:
    """From `COUNT` or `COUNT@SPEED`, several separated by commas. A backend's weight is its speed, as someone who knows
    the GPUs would set it. ValueError says what is wrong."""
    backends: list[SimulatedBackend] = []
    for part in text.split(","):
        match = _GROUP.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"{part.strip()!r} is neither COUNT nor COUNT@SPEED, such as 8 or 2@2.2,6@1.0")
        count, speed = int(match[1]), float(match[2] or 1)
        if not count or not speed:
            raise ValueError(f"{part.strip()!r}: count and speed must be more than 0")
        first = len(backends) + 1
        backends += [SimulatedBackend(f"backend-{first + index}", speed, speed) for index in range(count)]
    if len(backends) > BACKENDS_MAX:
        raise ValueError(f"{len(backends)} backends are more than {BACKENDS_MAX}")
    return tuple(backends)


def configured_backends(name: str, pool: PoolConfig) -> tuple[SimulatedBackend, ...]:
    """One for each backend of the pool, all of the profile's speed, which no configuration tells."""
    specs = [backend.spec(name) for backend in pool.backends]
    return tuple(SimulatedBackend(spec.id, 1.0, spec.weight, spec.max_concurrency) for spec in specs)


def with_limits_of(pool: PoolConfig, backends: Sequence[SimulatedBackend]) -> tuple[SimulatedBackend, ...]:
    """`backends` with the pool's `max_concurrency`: its backends' in turn, where the numbers of both differ."""
    limits = [backend.max_concurrency for backend in pool.backends]
    return tuple(
        replace(backend, max_concurrency=limits[index % len(limits)]) for index, backend in enumerate(backends)
    )
