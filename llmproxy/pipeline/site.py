"""What the requests of one proxy share."""

from collections.abc import Callable

from llmproxy.auth.gate import Gate
from llmproxy.pipeline.cors import cors_lines
from llmproxy.pipeline.hot_prompts import HotPrompts
from llmproxy.pipeline.ids import RequestIds
from llmproxy.pipeline.links import Links
from llmproxy.pipeline.snapshot import Snapshot
from llmproxy.policy.limits.limiter import Limiter
from llmproxy.telemetry.metrics import Metrics
from llmproxy.wire.deadlines import Deadlines
from llmproxy.wire.inbound import InboundRequest


class Site:
    """`snapshot` is replaced whole on reload, `draining` set once. `buffered` counts the bytes of request bodies that
    are held, `reused` the attempts that went over a kept connection."""

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        clock: Callable[[], float],
        deadlines: Deadlines,
        links: Links,
        metrics: Metrics,
    ) -> None:
        self.snapshot = snapshot
        self.clock = clock
        self.deadlines = deadlines
        self.links = links
        self.metrics = metrics
        self.ids = RequestIds()
        self.draining = False
        self.buffered = 0
        self.reused = 0
        self.gate: Gate | None = None
        """Who asks; None where nobody is asked for a key. Replaced whole on reload."""
        self.limiter: Limiter | None = None
        """What they may use; None where nobody is limited. Replaced whole, too."""
        self.prefix_secret = b""
        """Goes into the hashes of prompts, which are logged when there is one."""
        self.hot: dict[str, HotPrompts] = {}
        """What a new replica is to compute first, by pool; only of those whose replicas are. Written by whoever applies
        the configuration."""

    def reserve(self, size: int) -> bool:
        """Count `size` more buffered body bytes; False when too many are held already."""
        buffered = self.buffered + size
        if buffered > self.snapshot.bounds.buffered_max_bytes:
            return False
        self.buffered = buffered
        return True

    def release(self, size: int) -> None:
        """Give buffered body bytes back."""
        self.buffered -= size

    def cors(self, snapshot: Snapshot, request: InboundRequest) -> bytes:
        """CORS header lines for an answer."""
        return cors_lines(snapshot.config.server.cors, request) if snapshot.bounds.has_cors else b""
