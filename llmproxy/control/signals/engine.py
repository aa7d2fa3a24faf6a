"""The metrics page of an engine: `/metrics` of the backend itself."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import ClassVar, Final

from llmproxy.config.model import PoolConfig
from llmproxy.control.signals.engine_table import (
    CACHE_INFO,
    COPY_LABELS,
    HEARTBEATS,
    LORA_INFO,
    MODEL_LABELS,
    SLEEP_STATE,
    TABLE,
    Fold,
)
from llmproxy.control.signals.samples import Sample, Samples
from llmproxy.control.signals.source import Means, Source, SourceError
from llmproxy.core.backend import Backend, Gauges, Timings

_COUNTER = "_total"


def _listed() -> dict[str, str]:
    """Every name that may stand in a page -> the name that the tables have it under."""
    names = {*(row.name for row in TABLE), *HEARTBEATS, *CACHE_INFO, SLEEP_STATE, LORA_INFO}
    return {name: name for name in names} | {
        name.removesuffix(_COUNTER): name for name in names if name.endswith(_COUNTER)
    }


_LISTED: Final = _listed()
WANTED: Final = frozenset(name.encode() for name in _LISTED)


class EnginePage:
    """Reads one backend's page."""

    is_optional: ClassVar = True

    def __init__(self, backend: Backend, settings: PoolConfig, means: Means) -> None:
        self._backend = backend
        self._key = settings.upstream_key
        self._path = settings.signals.path
        self._http = means.http

    @classmethod
    def of(cls, backend: Backend, settings: PoolConfig, means: Means) -> Source | None:
        return cls(backend, settings, means)

    async def read(self, now: float) -> Gauges:
        page = Samples(WANTED)
        status = await self._http.get(self._backend.spec, self._key, self._path, page)
        if status != 200:
            raise SourceError(f"{self._path} answered {status}", absent=status < 500)
        if page.too_long:
            raise SourceError(f"{self._path} is too long to be metrics", absent=True)
        gauges = gauges_of(page.whole(), now)
        if gauges == Gauges(now):
            raise SourceError(f"{self._path} has no metric of an engine that is known", absent=True)
        return gauges


def gauges_of(samples: Iterable[Sample], now: float) -> Gauges:
    """A page's samples as gauges."""
    by_name: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        if all(sample.labels.get(label, "0") == "0" for label in COPY_LABELS):
            by_name[_LISTED[sample.name]].append(sample)
    values = _values(by_name)
    beats = [sample.value for name in HEARTBEATS for sample in by_name.get(name, ())]
    kv_usage = values.get("kv_usage")
    gauges = Gauges(
        at=now,
        running=values.get("running"),
        waiting=values.get("waiting"),
        # Some exporters mean percent by it: no share, so not known.
        kv_usage=kv_usage if kv_usage is not None and 0.0 <= kv_usage <= 1.0 else None,
        kv_tokens=_kv_tokens(by_name, values),
        sleeping=_sleeping(by_name[SLEEP_STATE]),
        models=_models(by_name),
        loras=_loras(by_name[LORA_INFO]),
        preemptions=values.get("preemptions"),
        prompt_tokens=values.get("prompt_tokens"),
        generation_tokens=values.get("generation_tokens"),
        heartbeat=sum(beats) if beats else None,
        ttft=_timings(values, "ttft"),
        itl=_timings(values, "itl"),
    )
    if "prefix_hits" not in values:
        return gauges
    return replace(gauges, prefix_hits=values["prefix_hits"], prefix_queries=values.get("prefix_queries"))


def _values(by_name: defaultdict[str, list[Sample]]) -> dict[str, float]:
    values: dict[str, float] = {}
    for row in TABLE:
        if row.field in values:
            continue
        found = [
            sample.value
            for sample in by_name.get(row.name, ())
            if sample.value >= 0 and (row.where is None or sample.labels.get(row.where[0]) == row.where[1])
        ]
        if found:
            values[row.field] = sum(found) / len(found) if row.fold is Fold.MEAN else sum(found)
    return values


def _timings(values: dict[str, float], field: str) -> Timings | None:
    sum_s, count = values.get(f"{field}_sum"), values.get(f"{field}_count")
    return None if sum_s is None or count is None else Timings(sum_s, count)


def _kv_tokens(by_name: defaultdict[str, list[Sample]], values: dict[str, float]) -> int | None:
    for name, (tokens, blocks, block_tokens) in CACHE_INFO.items():
        sizes = [
            _whole(sample, tokens) or _whole(sample, blocks) * _whole(sample, block_tokens)
            for sample in by_name.get(name, ())
        ]
        if sum(sizes):
            return sum(sizes)
    found = values.get("kv_tokens") or values.get("kv_blocks", 0.0) * values.get("kv_block_tokens", 0.0)
    return int(found) or None


def _whole(sample: Sample, label: str) -> int:
    """A label's number; 0 for "None" and everything else that is none."""
    text = sample.labels.get(label, "")
    return int(text) if text.isdecimal() and len(text) < 16 else 0


def _sleeping(samples: Sequence[Sample]) -> bool | None:
    """With several engines behind one server it sleeps when all of them do."""
    awake = [sample.value > 0 for sample in samples if sample.labels.get("sleep_state") == "awake"]
    return not any(awake) if awake else None


def _models(by_name: defaultdict[str, list[Sample]]) -> tuple[str, ...]:
    names = {
        sample.labels[label]: None
        for row in TABLE
        if row.field == "running"
        for sample in by_name.get(row.name, ())
        for label in MODEL_LABELS
        if sample.labels.get(label)
    }
    return tuple(names)


def _loras(samples: Sequence[Sample]) -> tuple[str, ...] | None:
    """vLLM leaves every combination there ever was in the page; the value is when it was so."""
    if not samples:
        return None
    newest = max(sample.value for sample in samples)
    names = {
        name.strip()
        for sample in samples
        if sample.value == newest
        for label in ("running_lora_adapters", "waiting_lora_adapters")
        for name in sample.labels.get(label, "").split(",")
    }
    return tuple(sorted(names - {""}))
