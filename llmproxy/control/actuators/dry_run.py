"""`{kind: dry_run}`: changes nothing and says what it would have done."""

import logging
from collections.abc import Mapping, Sequence

from llmproxy.control.actuators.base import Instance

_log = logging.getLogger("llmproxy.control.actuators")


class DryRun:
    """Around another actuator, or around the backends that are configured: what there is stays."""

    def __init__(self, pool: str) -> None:
        self.last: int | None = None
        """The number that was asked for last."""
        self._pool = pool

    async def start(self) -> None:
        """Nothing to find."""

    async def stop(self) -> None:
        """Nothing to end."""

    async def replicas(self) -> Sequence[Instance]:
        return ()

    async def scale(
        self, count: int, *, leaving: Sequence[str] = (), fence: int = 0, tiers: Mapping[str, int] | None = None
    ) -> None:
        if count == self.last:
            return
        gone = f", without {', '.join(leaving)}" if leaving else ""
        _log.info("pool %s: dry run: would have %d replicas%s", self._pool, count, gone)
        self.last = count
