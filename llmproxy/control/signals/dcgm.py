"""A GPU as a DCGM exporter shows it: `gpu: {dcgm: "http://node:9400/metrics", device: 0}`.

Which fields it shows is up to its configuration; those that it leaves out stay unknown. Of a GPU that is split into MIG
instances it shows each instance (`GPU_I_ID`), with the memory of each, and the GPU's own utilisation not at all.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import ClassVar, Final

from llmproxy.config.model import PoolConfig
from llmproxy.control.signals.nvml_library import is_throttled
from llmproxy.control.signals.samples import Sample, Samples
from llmproxy.control.signals.source import Means, Source, SourceError
from llmproxy.core.backend import Backend, BackendSpec, Gauges, GpuGauges, GpuSpec

_MIB: Final = 1024.0**2
_UTILIZATION: Final = "DCGM_FI_DEV_GPU_UTIL"
_ENGINE_ACTIVE: Final = "DCGM_FI_PROF_GR_ENGINE_ACTIVE"
_USED: Final = "DCGM_FI_DEV_FB_USED"
_FREE: Final = "DCGM_FI_DEV_FB_FREE"
_RESERVED: Final = "DCGM_FI_DEV_FB_RESERVED"
_TOTAL: Final = "DCGM_FI_DEV_FB_TOTAL"
_POWER: Final = "DCGM_FI_DEV_POWER_USAGE"
_TEMPERATURE: Final = "DCGM_FI_DEV_GPU_TEMP"
_THROTTLED: Final = ("DCGM_FI_DEV_CLOCKS_EVENT_REASONS", "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS")
_ECC: Final = "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL"
_INSTANCE: Final = "GPU_I_ID"
WANTED: Final = frozenset(
    name.encode()
    for name in (
        *(_UTILIZATION, _ENGINE_ACTIVE, _USED, _FREE, _RESERVED, _TOTAL, _POWER, _TEMPERATURE, _ECC),
        *_THROTTLED,
    )
)


class DcgmPage:
    """Reads one GPU from an exporter's page."""

    is_optional: ClassVar = False

    def __init__(self, gpu: GpuSpec, means: Means) -> None:
        self._gpu = gpu
        self._spec = BackendSpec(id="dcgm", url=gpu.dcgm)
        self._http = means.http

    @classmethod
    def of(cls, backend: Backend, settings: PoolConfig, means: Means) -> Source | None:
        gpu = backend.spec.gpu
        return cls(gpu, means) if gpu is not None and gpu.dcgm else None

    async def read(self, now: float) -> Gauges:
        page = Samples(WANTED)
        status = await self._http.get(self._spec, "", "", page)
        if status != 200:
            raise SourceError(f"{self._gpu.dcgm} answered {status}", absent=status < 500)
        gpu = gpu_of(page.whole(), self._gpu, now)
        if gpu is None:
            which = self._gpu.uuid or f"number {self._gpu.device}"
            raise SourceError(f"{self._gpu.dcgm} shows no GPU {which}", absent=True)
        return Gauges(now, gpu=gpu)


def gpu_of(samples: Iterable[Sample], which: GpuSpec, now: float) -> GpuGauges | None:
    """The GPU `which`; None when it is not there."""
    whole: dict[str, float] = {}
    instances: defaultdict[str, dict[str, float]] = defaultdict(dict)
    mig = False
    for sample in samples:
        labels = sample.labels
        if labels.get("UUID") == which.uuid if which.uuid else labels.get("gpu") == str(which.device):
            instance = labels.get(_INSTANCE)
            if instance:
                mig = True
                instances[sample.name].setdefault(instance, sample.value)
            else:
                # With several pods on it, one line for each of them: all the same.
                whole.setdefault(sample.name, sample.value)
    if not whole and not instances:
        return None
    memory = {name: sum(instances[name].values()) for name in (_USED, _FREE) if name in instances} | whole
    percent, active, used = whole.get(_UTILIZATION), whole.get(_ENGINE_ACTIVE), memory.get(_USED)
    reasons = next((whole[name] for name in _THROTTLED if name in whole), None)
    return GpuGauges(
        at=now,
        utilization=percent / 100 if percent is not None else active,
        memory_used_bytes=None if used is None else used * _MIB,
        memory_total_bytes=_total_bytes(memory),
        power_w=whole.get(_POWER),
        temperature_c=whole.get(_TEMPERATURE),
        throttled=is_throttled(None if reasons is None else int(reasons)),
        ecc_errors=whole.get(_ECC),
        mig=mig,
    )


def _total_bytes(memory: dict[str, float]) -> float | None:
    if _TOTAL in memory:
        return memory[_TOTAL] * _MIB
    if _USED not in memory or _FREE not in memory:
        return None
    return (memory[_USED] + memory[_FREE] + memory.get(_RESERVED, 0.0)) * _MIB
