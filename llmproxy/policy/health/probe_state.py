"""What active probes say of one backend."""

from llmproxy.core.backend import Status
from llmproxy.core.ports import ProbeResult
from llmproxy.policy.health.settings import HealthSettings


class ProbeState:
    """Counts probes in a row. `label` is NEW, LOADING, HEALTHY, UNHEALTHY or SLEEPING."""

    __slots__ = ("_asleep", "_bad", "_good", "_loading", "out", "proven")

    def __init__(self) -> None:
        self._good = 0
        self._bad = 0
        self._asleep = False
        self._loading = False
        """The last bad probe found it on its way up."""
        self.proven = False
        """It has been well once since it was added: from then on it can be called unhealthy."""
        self.out = False
        """Proven, but taken out by bad probes."""

    @property
    def label(self) -> Status:
        """What the probes come to."""
        if self._asleep:
            return Status.SLEEPING
        if self.proven and not self.out:
            return Status.HEALTHY
        if self._loading:
            return Status.LOADING
        return Status.UNHEALTHY if self.out or self._bad else Status.NEW

    def record(self, result: ProbeResult, settings: HealthSettings) -> None:
        """Take a probe's result."""
        if result is ProbeResult.OK or result is ProbeResult.SLEEPING:
            self._was_well(settings, asleep=result is ProbeResult.SLEEPING)
        else:
            self._was_bad(result, settings)

    def _was_well(self, settings: HealthSettings, *, asleep: bool) -> None:
        self._asleep = asleep
        self._bad = 0
        self._good += 1
        if self.out and self._good >= settings.healthy_after:
            self.out = False
        if not asleep:
            self.proven = True
        if not self.out:
            self._loading = False

    def _was_bad(self, result: ProbeResult, settings: HealthSettings) -> None:
        self._good = 0
        self._bad += 1
        # One that is not up yet refuses. Other trouble (a wrong path, a host that swallows packets) is shown as
        # UNHEALTHY, though all that comes of it is no traffic, as before.
        self._loading = result is ProbeResult.LOADING or (result is ProbeResult.REFUSED and not self.proven)
        if self._bad >= settings.unhealthy_after:
            self._asleep = False
            self.out = self.proven
