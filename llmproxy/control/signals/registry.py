"""Names -> sources: one line each, and third parties' through the entry point group `llmproxy.signals`."""

import logging
from collections.abc import Mapping
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Final

from llmproxy.config.model import PoolConfig
from llmproxy.control.signals.agent import AgentGpu
from llmproxy.control.signals.dcgm import DcgmPage
from llmproxy.control.signals.engine import EnginePage
from llmproxy.control.signals.nvml import LocalGpu
from llmproxy.control.signals.source import Means, Source, SourceType
from llmproxy.core.backend import Backend

ENTRY_POINTS: Final = "llmproxy.signals"

SOURCES: Final[Mapping[str, SourceType]] = MappingProxyType(
    {
        "engine": EnginePage,
        "nvml": LocalGpu,
        "agent": AgentGpu,
        "dcgm": DcgmPage,
    }
)

_log = logging.getLogger("llmproxy.control.signals")


def all_sources() -> dict[str, SourceType]:
    """Ours and third parties'. One that cannot be loaded is reported and left out."""
    found = dict(SOURCES)
    for point in entry_points(group=ENTRY_POINTS):
        try:
            found.setdefault(point.name, point.load())
        except Exception as error:
            _log.warning("signal source %s (%s) could not be loaded: %s", point.name, point.value, error)
    return found


def sources_of(
    kinds: Mapping[str, SourceType], backend: Backend, settings: PoolConfig, means: Means
) -> dict[str, Source]:
    """What there is to read of one backend."""
    made = {name: kind.of(backend, settings, means) for name, kind in kinds.items()}
    return {name: source for name, source in made.items() if source is not None}
