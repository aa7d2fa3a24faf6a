"""What limits tell a scrape: readers by the names of the metrics' table, and nothing for what a store does not have."""

from collections.abc import Callable, Mapping

from llmproxy.core.limits import LimitStore
from llmproxy.policy.limits.limiter import Limiter
from llmproxy.telemetry.metrics import Reading


def limit_readers(limiter: Limiter, store: LimitStore) -> Mapping[str, Callable[[], Reading]]:
    """For `Metrics.read`."""

    def verdicts() -> Reading:
        return {tuple(labels): float(count) for labels, count in limiter.verdicts.items()}

    readers: dict[str, Callable[[], Reading]] = {"llmproxy_limit_verdicts_total": verdicts}
    counts, links = getattr(store, "counts", None), getattr(store, "links", None)
    if counts is not None and links is not None:
        readers["llmproxy_limit_decisions_total"] = lambda: dict(counts)
        readers["llmproxy_limit_store_links_total"] = lambda: dict(links)
        readers["llmproxy_limit_store_up"] = lambda: float(getattr(store, "connected", False))
        readers["llmproxy_limit_proxies"] = lambda: float(getattr(store, "proxies", 1))
    return readers
