"""A GPU of this host, through NVIDIA's library: `gpu: {device: 0}` or `gpu: {uuid: GPU-...}`."""

from typing import ClassVar

from llmproxy.config.model import PoolConfig
from llmproxy.control.signals.nvml_library import NvmlError
from llmproxy.control.signals.nvml_thread import Nvml
from llmproxy.control.signals.source import Means, Source, SourceError
from llmproxy.core.backend import Backend, Gauges


class LocalGpu:
    """Reads one GPU."""

    is_optional: ClassVar = False

    def __init__(self, which: int | str, nvml: Nvml) -> None:
        self._which = which
        self._nvml = nvml

    @classmethod
    def of(cls, backend: Backend, settings: PoolConfig, means: Means) -> Source | None:
        gpu = backend.spec.gpu
        if gpu is None or gpu.agent or gpu.dcgm:
            return None
        return cls(gpu.uuid if gpu.device is None else gpu.device, means.nvml)

    async def read(self, now: float) -> Gauges:
        try:
            return Gauges(now, gpu=await self._nvml.read(self._which, now))
        except NvmlError as error:
            raise SourceError(str(error), absent=True, reported=error.reported) from None
