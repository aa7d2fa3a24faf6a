"""What a source is, and what it may use."""

from dataclasses import dataclass
from typing import Protocol

from llmproxy.config.model import PoolConfig
from llmproxy.control.probe import ProbeClient
from llmproxy.control.signals.nvml_thread import Nvml
from llmproxy.core.backend import Backend, Gauges


class SourceError(Exception):
    """There is nothing to read just now; the message says why. `absent`: nor will there be soon, so ask less often.
    `reported`: whoever raised it has put it in the log already."""

    def __init__(self, reason: str, *, absent: bool = False, reported: bool = False) -> None:
        super().__init__(reason)
        self.absent = absent
        self.reported = reported


@dataclass(frozen=True, slots=True)
class Means:
    """What sources read with; shared by all."""

    http: ProbeClient
    nvml: Nvml


class Source(Protocol):
    """Reads one thing of one backend, whenever it is asked; never twice at a time."""

    async def read(self, now: float) -> Gauges:
        """What it sees: gauges as of `now`, whatever it does not know left out. Raises `SourceError`, or an
        `OSError` or `aiohttp.ClientError` when nobody answers. May be cancelled at any await."""


class SourceType(Protocol):
    """What the registry holds."""

    @property
    def is_optional(self) -> bool:
        """Nobody asked for it by name, so that it is no wonder when it is missing."""

    def of(self, backend: Backend, settings: PoolConfig, means: Means) -> Source | None:
        """The source of this backend's gauges; None when it has none of this kind."""
