"""A GPU of another host, as its `llmproxy gpu-agent` shows it: `gpu: {agent: "http://node:9401", device: 0}`."""

import json
from dataclasses import fields
from math import isfinite
from typing import Any, ClassVar, Final

from llmproxy.config.model import PoolConfig
from llmproxy.control.signals.source import Means, Source, SourceError
from llmproxy.core.backend import Backend, BackendSpec, Gauges, GpuGauges, GpuSpec

_ANSWER_MAX_BYTES: Final = 1 << 20
_FLAGS: Final = frozenset({"throttled", "mig"})
_FIELDS: Final = tuple(field.name for field in fields(GpuGauges) if field.name != "at")


class AgentGpu:
    """Reads one GPU from an agent."""

    is_optional: ClassVar = False

    def __init__(self, gpu: GpuSpec, means: Means) -> None:
        self._gpu = gpu
        self._spec = BackendSpec(id="gpu-agent", url=gpu.agent)
        self._http = means.http

    @classmethod
    def of(cls, backend: Backend, settings: PoolConfig, means: Means) -> Source | None:
        gpu = backend.spec.gpu
        return cls(gpu, means) if gpu is not None and gpu.agent else None

    async def read(self, now: float) -> Gauges:
        answer = _Answer()
        # One GPU, when it has a UUID: a MIG instance is not in the list of all.
        status = await self._http.get(self._spec, "", f"/gpus/{self._gpu.uuid}" if self._gpu.uuid else "/gpus", answer)
        if status != 200:
            raise SourceError(f"{self._gpu.agent} answered {status}", absent=True)
        try:
            found = json.loads(answer.body)
        except (ValueError, RecursionError):
            raise SourceError(f"{self._gpu.agent} answered with no JSON", absent=True) from None
        gpus = found.get("gpus") if isinstance(found, dict) else None
        for gpu in gpus if isinstance(gpus, list) else ():
            if isinstance(gpu, dict) and (self._gpu.uuid or gpu.get("index") == self._gpu.device):
                return Gauges(now, gpu=gpu_of(gpu, now))
        raise SourceError(f"{self._gpu.agent} has no GPU {self._gpu.uuid or self._gpu.device}", absent=True)


def gpu_of(values: dict[str, Any], now: float) -> GpuGauges:
    """One entry of an agent's answer. What is there is checked; what is not there, or makes no sense, is unknown. Its
    `age_s` says how long ago the agent itself read it."""
    known = {name: _sensible(name, values.get(name)) for name in _FIELDS}
    return GpuGauges(at=now - (_sensible("age_s", values.get("age_s")) or 0.0), **known)


def _sensible(name: str, value: Any) -> Any:
    if name in _FLAGS:
        return value if isinstance(value, bool) else None
    return float(value) if _is_number(value) and value >= 0 else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)


class _Answer:
    """Collects a body; what is cut off is no JSON any more."""

    def __init__(self) -> None:
        self.body = bytearray()

    def feed(self, data: bytes) -> bool:
        """True when it has had enough."""
        self.body += data
        return len(self.body) > _ANSWER_MAX_BYTES
