"""The questions of this package together, for one pool."""

from llmproxy.core.backend import Backend
from llmproxy.core.ports import Backlogged, RoutingPolicy
from llmproxy.policy.admission.options import AdmissionOptions
from llmproxy.policy.admission.saturation.adaptive import AdaptiveConcurrency
from llmproxy.policy.admission.saturation.awaiting import Awaiting
from llmproxy.policy.admission.saturation.share import PrefillShare

STARTING_MAX = 4
"""Requests on their way to a backend at once: they count in no backlog before they are sent, and connections take
time."""


class Saturation:
    """Told of every stream that is asked for, gets its first token and ends, where `watches`; else it asks nothing but
    `max_concurrency`."""

    def __init__(self, options: AdmissionOptions, routing: RoutingPolicy) -> None:
        self._awaiting = Awaiting()
        self._starting: dict[Backend, int] = {}
        self.share: PrefillShare | None = None
        self.adaptive: AdaptiveConcurrency | None = None
        self.configure(options, routing)

    def configure(self, options: AdmissionOptions, routing: RoutingPolicy) -> None:
        """New options or another policy. What has been learned stays, where it is asked for still."""
        self._backlog_s = options.backlog_s
        self._costs = routing if isinstance(routing, Backlogged) else None
        self._backlogged = self._costs if options.backlog_s else None
        if options.slo.tpot_s == float("inf"):
            self.share = None
        elif self.share is None:
            self.share = PrefillShare(options.tpot_missing)
        if options.adaptive is None:
            self.adaptive = None
        elif self.adaptive is None or self.adaptive.options != options.adaptive:
            self.adaptive = AdaptiveConcurrency(options.adaptive)

    @property
    def watches(self) -> bool:
        return self._backlogged is not None or self.share is not None or self.adaptive is not None

    def may_go(self, backend: Backend, now: float) -> bool:
        """Whether one more may be sent there now."""
        if not backend.has_room or self._starting.get(backend, 0) >= STARTING_MAX:
            return False
        backlogged, share, adaptive = self._backlogged, self.share, self.adaptive
        # What is thought to wait there is an estimate, answers that come whole the more so. It holds others only while
        # a first token is awaited that will set it right: an idle backend always takes one.
        if (
            backlogged is not None
            and backend in self._awaiting.streams
            and backlogged.backlog_s(backend, now) >= self._backlog_s
        ):
            return False
        if share is not None and not share.may_go(backend, now):
            return False
        return adaptive is None or adaptive.may_go(backend)

    def starts(self, backend: Backend) -> None:
        """A request is on its way there."""
        self._starting[backend] = self._starting.get(backend, 0) + 1

    def started(self, backend: Backend) -> None:
        """It was sent, or never will be."""
        left = self._starting.get(backend, 0) - 1
        if left > 0:
            self._starting[backend] = left
        else:
            self._starting.pop(backend, None)

    def began(self, backend: Backend, now: float) -> None:
        """A request for a stream was sent there."""
        self._awaiting.began(backend)
        if self.share is not None:
            self.share.computes(backend, True, now)

    def computed(self, backend: Backend, now: float) -> None:
        """It got its first token, or is over."""
        self._awaiting.ended(backend)
        if self.share is not None:
            self.share.computes(backend, backend in self._awaiting.streams, now)

    def wait_s(self, backend: Backend, now: float) -> float | None:
        """How long until all prompts sent there are thought to be computed; None where nobody knows."""
        return None if self._costs is None else self._costs.backlog_s(backend, now)

    def forget(self, backend: Backend) -> None:
        self._awaiting.forget(backend)
        self._starting.pop(backend, None)
        if self.share is not None:
            self.share.forget(backend)
        if self.adaptive is not None:
            self.adaptive.forget(backend)
