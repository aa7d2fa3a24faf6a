"""What a scrape reads of the parts of a proxy at its time: which metric comes from where."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from llmproxy.access import Access
from llmproxy.autoscaling import Autoscaling
from llmproxy.control.costs import Costs
from llmproxy.control.progress import ProgressWatch
from llmproxy.control.signals.scraper import Scraper
from llmproxy.core.clock import Clock
from llmproxy.limiting import Limiting
from llmproxy.pipeline.handler import Handler
from llmproxy.pipeline.links import Links
from llmproxy.pipeline.snapshot import ServingPool
from llmproxy.policy.admission.report import by_priority
from llmproxy.policy.health.breaker import State
from llmproxy.policy.health.registry import Health
from llmproxy.telemetry import gauges
from llmproxy.telemetry.access_log import AccessLog
from llmproxy.telemetry.metrics import Metrics
from llmproxy.wire.listener import Listener

_BREAKER: Final = {State.CLOSED: 0.0, State.HALF_OPEN: 1.0, State.OPEN: 2.0}


@dataclass(frozen=True, slots=True)
class GaugeViews:
    """`pools` gives those in force."""

    metrics: Metrics
    pools: Callable[[], Mapping[str, ServingPool]]
    health: Mapping[str, Health]
    clock: Clock
    handler: Handler
    listener: Listener
    links: Links
    access: Access
    access_log: AccessLog | None
    limiting: Limiting
    autoscaling: Autoscaling
    costs: Costs
    scraper: Scraper
    progress: ProgressWatch

    def tell(self) -> None:
        """Let scrapes read all of it from now on."""
        metrics = self.metrics
        metrics.watch(lambda: self.pools().values())
        for name, read in gauges.readers(lambda: self.pools().values(), self.clock).items():
            metrics.read(name, read)
        for name, read_scaling in self.autoscaling.all.readers().items():
            metrics.read(name, read_scaling)
        for name, read_costs in self.costs.readers().items():
            metrics.read(name, read_costs)
        metrics.read("llmproxy_scrapes_total", lambda: self.scraper.counts)
        metrics.read("llmproxy_backend_hangs_total", lambda: self.progress.hangs)
        metrics.read("llmproxy_queue_waiting_by_priority", self._waiting_by_priority)
        metrics.read("llmproxy_queue_waiting", self._waiting)
        metrics.read("llmproxy_breaker_state", self._breakers)
        self.limiting.tell(metrics)
        metrics.read("llmproxy_auth_total", lambda: self.access.results)
        metrics.read("llmproxy_auth_store_age_seconds", self.access.store_age_s)
        self._tell_of_connections()
        metrics.read("llmproxy_buffered_body_bytes", lambda: self.handler.buffered)
        access_log = self.access_log
        if access_log is not None:
            metrics.read("llmproxy_access_log_dropped_total", lambda: access_log.dropped)

    def _tell_of_connections(self) -> None:
        metrics, listener, links = self.metrics, self.listener, self.links
        metrics.read(
            "llmproxy_connections",
            lambda: {"downstream": len(listener.connections), "upstream": links.totals()[0]},
        )
        metrics.read(
            "llmproxy_connections_opened_total",
            lambda: {"downstream": listener.accepted, "upstream": links.totals()[1]},
        )
        metrics.read("llmproxy_connections_refused_total", lambda: listener.refused)
        metrics.read("llmproxy_connections_reused_total", lambda: self.handler.reused)

    def _breakers(self) -> dict[tuple[str, ...], float]:
        now = self.clock()
        return {
            (pool.name, backend.id): _BREAKER[self.health[pool.name].breaker(backend, now)]
            for pool in self.pools().values()
            for backend in pool.backends
        }

    def _waiting(self) -> dict[str, int]:
        return {name: pool.queue.waiting for name, pool in self.pools().items()}

    def _waiting_by_priority(self) -> dict[tuple[str, ...], float]:
        return {
            (name, band): float(count)
            for name, pool in self.pools().items()
            for band, count in by_priority(pool.queue).items()
        }
