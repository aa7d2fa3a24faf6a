"""What the autoscaler knows of a pool: `Signals`, made of the proxy's own counters and of what backends say.

`sample` once a second; `signals` whenever a decision is due. Counters only grow, so each window is the difference of
two samples. Tokens are counted when an answer ends, too late to size a fleet by: their demand is the requests that
arrive, times what a request of the last five minutes had on average. What a replica sustains is learned here as well,
from intervals in which requests waited all the time.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from llmproxy.control.scaling.elsewhere import Elsewhere, Sample, counters_of
from llmproxy.control.scaling.host import Host
from llmproxy.control.scaling.percentiles import above, difference, merged, percentiles
from llmproxy.control.scaling.reports import Report
from llmproxy.control.scaling.tier_meter import TierMeter
from llmproxy.core.backend import Backend, Gauges, GpuGauges, Status
from llmproxy.core.pool import Pool
from llmproxy.policy.scaling.base import Rates, Signals, TierState
from llmproxy.policy.scaling.capacity import Capacity
from llmproxy.policy.scaling.meter import DemandMeter
from llmproxy.telemetry.metrics import Metrics

_LEARN_EVERY_S: Final = 10.0
_LONG_S: Final = 60.0
_MEMORY_S: Final = 300.0
_FAILED: Final = frozenset({500, 502, 504})


@dataclass(frozen=True, slots=True)
class Replicas:
    """How many there are, as the loop counts them."""

    ready: int = 0
    starting: int = 0
    draining: int = 0
    sleeping: int = 0


class Meter:
    """One pool's. `slo_ttft_s`: what `slo_miss_rate` is about; None when there is no objective. `configured`: what one
    replica is said to sustain, until it is known better."""

    def __init__(
        self,
        pool: Pool[Any],
        metrics: Metrics,
        now: float,
        *,
        slo_ttft_s: float | None = None,
        configured: Rates | None = None,
        host: Host | None = None,
        tiers: Sequence[str] = (),
    ) -> None:
        self._tiers = {tier: TierMeter(metrics, (pool.name, tier), now) for tier in tiers}
        self.slo_ttft_s = slo_ttft_s
        self.elsewhere = Elsewhere()
        self._demand = DemandMeter(now)
        self.capacity = Capacity(configured)
        self._learn_from: Sample | None = None
        self._learn_ready = 0.0
        self._waited_throughout = True
        self._pool = pool
        self._metrics = metrics
        self._host = host or Host()
        self._cpu: float | None = None
        self._samples: deque[Sample] = deque()
        self._bounds: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())
        self._told_arrived: float | None = None
        self._failures = 0
        self._seen_failures: dict[tuple[str, str, str, int], int] = {}

    # -- reading ---------------------------------------------------------------------------------------------------

    def sample(self, now: float) -> None:
        """Remember the counters as they are."""
        samples = self._samples
        before = samples[-1] if samples else None
        sample = self.elsewhere.added_to(self._read(now))
        samples.append(sample)
        # The one before the window's begin stays, to be subtracted.
        while len(samples) > 2 and now - samples[1].at >= _MEMORY_S:
            samples.popleft()
        if before is not None:
            requests = sample.arrived - before.arrived
            finished = sample.done - samples[0].done
            prefill = (sample.prefill - samples[0].prefill) / finished if finished else 0.0
            decode = (sample.completion - samples[0].completion) / finished if finished else 0.0
            self._demand.count(now, requests, requests * prefill, requests * decode)
        for name, tier in self._tiers.items():
            tier.sample(now, self.elsewhere.of_tier(name))
        self._learn(sample)
        cpu = self._host.cpu(now)
        self._cpu = cpu if cpu is not None else self._cpu

    def signals(
        self,
        now: float,
        unix_s: float,
        replicas: Replicas,
        *,
        cold_start_s: float | None,
        queries: Iterable[tuple[str, float]] = (),
    ) -> Signals:
        """Everything known at `now`."""
        if not self._samples or self._samples[-1].at < now:
            self.sample(now)
        last, long, memory = self._samples[-1], self._since(_LONG_S), self._samples[0]
        told, self._told_arrived = self._told_arrived, last.arrived
        waiting = self._waiting(now)
        in_flight = sum(backend.load.in_flight for backend in self._pool.backends) + self.elsewhere.in_flight
        waits = [one for one in (self._pool.queue.longest_wait_s(now), self.elsewhere.wait_s) if one is not None]
        gauges = [gauges for backend in self._pool.backends if (gauges := backend.known(now)) is not None]
        gpus = [gpu for backend in self._pool.backends if (gpu := _gpu(backend, now)) is not None]
        return Signals(
            now=now,
            unix_s=unix_s,
            ready=replicas.ready,
            starting=replicas.starting,
            draining=replicas.draining,
            sleeping=replicas.sleeping,
            queue_depth=waiting,
            queue_wait_s=max(waits, default=None),
            in_flight=in_flight,
            arrivals=int(max(last.arrived - told, 0)) if told is not None else None,
            demand=self._demand.demand(now),
            sustainable=self.capacity.rates,
            prompt_tokens_per_s=_rate(last.prompt, long.prompt, last, long),
            generated_tokens_per_s=_rate(last.completion, long.completion, last, long),
            ttft=percentiles(last.ttft, long.ttft, self._bounds[0]),
            e2e=percentiles(last.e2e, long.e2e, self._bounds[1]),
            error_rate=_share(last.failed - long.failed, last.done - long.done),
            shed_rate=_share(last.shed - long.shed, last.done - long.done),
            slo_miss_rate=self._missed(last, memory),
            gpu_utilization=_mean(gpu.utilization for gpu in gpus),
            gpu_memory=_mean(_memory(gpu) for gpu in gpus),
            kv_usage=_mean(one.kv_usage for one in gauges),
            cpu=self._cpu,
            memory=self._host.memory(),
            cold_start_s=cold_start_s,
            queries=tuple(queries),
        )

    def waited_and_failed(self) -> tuple[int, int, int]:
        """Requests to this proxy: all so far that had to wait for a place, all that failed upstream or were shed, and
        those who wait now."""
        waits = self._metrics.queue_waits.get(self._pool.name)
        waited = sum(waits.counts) if waits is not None else 0
        return waited, self._failed() + self._shed(), int(self._pool.queue.waiting)

    def tier(self, name: str, ready: int, starting: int) -> TierState:
        """One tier of capacity, with `ready` and `starting` replicas."""
        found = self._tiers.get(name)
        demand = found.demand.demand(self._samples[-1].at).last_60s if found is not None and self._samples else Rates()
        waiting = self._pool.awaited.get(name, 0) + self.elsewhere.awaited.get(name, 0)
        return TierState(name, ready, starting, waiting=waiting, demand=demand)

    def report(self, now: float, at: Mapping[str, tuple[str, int]], sessions: Mapping[str, int]) -> Report:
        """Of this proxy's own traffic, for the others. `at`: the stages of replicas, and the requests there."""
        own = self._read(now)
        queue = self._pool.queue
        tiers = {name: (*one.own(), self._pool.awaited.get(name, 0)) for name, one in self._tiers.items()}
        wait_s = queue.longest_wait_s(now)
        return Report(counters_of(own), (own.ttft, own.e2e), int(queue.waiting), wait_s, at, tiers, sessions)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _read(self, now: float) -> Sample:
        name = self._pool.name
        series = [one for one in self._metrics.all_series.values() if one.pool == name]
        ttft, ttft_bounds = merged(series, lambda one: one.ttft)
        e2e, e2e_bounds = merged(series, lambda one: one.duration)
        self._bounds = ttft_bounds or self._bounds[0], e2e_bounds or self._bounds[1]
        prompt = sum(one.prompt_tokens for one in series)
        # Not from the counters by backend: those of a backend that left are dropped.
        done = sum(e2e)
        return Sample(
            at=now,
            arrived=done + self._live(),
            done=done,
            failed=self._failed(),
            shed=self._shed(),
            prompt=prompt,
            prefill=prompt - sum(one.cached_tokens for one in series),
            completion=sum(one.completion_tokens for one in series),
            ttft=ttft,
            e2e=e2e,
        )

    def _shed(self) -> int:
        return sum(count for (pool, _), count in self._metrics.shed.items() if pool == self._pool.name)

    def _failed(self) -> int:
        """Answers that say a server failed; grows also when the counters of a backend that left are dropped."""
        name, seen = self._pool.name, self._seen_failures
        now = {key: n for key, n in self._metrics.requests.items() if key[0] == name and key[3] in _FAILED}
        self._failures += sum(max(count - seen.get(key, 0), 0) for key, count in now.items())
        self._seen_failures = now
        return self._failures

    def _live(self) -> int:
        """Requests that have come and have not been answered."""
        live = getattr(self._pool.retries, "live", None)
        if live is not None:
            return int(live)
        return int(self._pool.queue.waiting) + sum(backend.load.in_flight for backend in self._pool.backends)

    def _since(self, seconds: float) -> Sample:
        """The sample from which on `seconds` have passed, or the first there is."""
        begins = self._samples[-1].at - seconds + 1e-3
        found = self._samples[0]
        for sample in reversed(self._samples):
            if sample.at <= begins:
                return sample
        return found

    def _waiting(self, now: float) -> int:
        """Requests that wait for room: here, at other proxies, and inside the engines."""
        inside = [gauges.waiting for backend in self._pool.backends if (gauges := backend.known(now)) is not None]
        outside = int(self._pool.queue.waiting) + self.elsewhere.waiting
        return outside + int(sum(waiting for waiting in inside if waiting is not None))

    def _learn(self, sample: Sample) -> None:
        """Look every now and then what was served, and whether more was there to be served."""
        # Who waits for a larger replica says nothing of what the others can do.
        for_larger = sum(self._pool.awaited.values()) + sum(self.elsewhere.awaited.values())
        waiting = self._waiting(sample.at) > for_larger
        self._waited_throughout = self._waited_throughout and waiting
        began = self._learn_from
        healthy = [one for one in self._pool.backends if one.status is Status.HEALTHY]
        # A tier's weight is what its replicas are worth.
        ready = sum(one.spec.weight if one.spec.tier else 1.0 for one in healthy)
        if began is None or ready != self._learn_ready:
            # One that came or went in between makes it an interval of neither number.
            self._learn_from, self._learn_ready, self._waited_throughout = sample, ready, waiting
            return
        elapsed_s = sample.at - began.at
        if elapsed_s < _LEARN_EVERY_S:
            return
        served = Rates(
            *((getattr(sample, name) - getattr(began, name)) / elapsed_s for name in ("done", "prefill", "completion"))
        )
        warm = all(backend.weight == backend.spec.weight for backend in self._pool.backends)
        self.capacity.observe(served, ready if warm else 0.0, self._waited_throughout, not waiting, elapsed_s)
        self._learn_from, self._waited_throughout = sample, waiting

    def _missed(self, last: Sample, memory: Sample) -> float | None:
        if self.slo_ttft_s is None:
            return None
        counts = difference(last.ttft, memory.ttft)
        return _share(above(counts, self._bounds[0], self.slo_ttft_s), sum(counts))


def _gpu(backend: Backend, now: float) -> GpuGauges | None:
    gauges: Gauges | None = backend.gauges
    return gauges.fresh_gpu(now) if gauges is not None else None


def _memory(gpu: GpuGauges) -> float | None:
    if gpu.memory_used_bytes is None or not gpu.memory_total_bytes:
        return None
    return gpu.memory_used_bytes / gpu.memory_total_bytes


def _rate(now: float, before: float, last: Sample, first: Sample) -> float | None:
    elapsed_s = last.at - first.at
    return max(now - before, 0.0) / elapsed_s if elapsed_s > 0 else None


def _share(part: float, whole: float) -> float | None:
    return min(max(part / whole, 0.0), 1.0) if whole > 0 else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
