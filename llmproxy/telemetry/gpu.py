"""The fields of a GPU as metrics: `llmproxy_backend_<name>` of the proxy, `llmproxy_<name>` of `llmproxy gpu-agent`."""

from collections.abc import Callable
from typing import Final, NamedTuple

from llmproxy.core.backend import GpuGauges


class GpuMetric(NamedTuple):
    """The end of a metric's name, what it means, and where it comes from."""

    name: str
    help: str
    value: Callable[[GpuGauges], float | None]


GPU: Final = (
    GpuMetric("gpu_utilization_ratio", "Share of time in which anything ran on the GPU.", lambda gpu: gpu.utilization),
    GpuMetric("gpu_memory_used_bytes", "Memory in use on the GPU.", lambda gpu: gpu.memory_used_bytes),
    GpuMetric("gpu_memory_total_bytes", "Memory of the GPU.", lambda gpu: gpu.memory_total_bytes),
    GpuMetric("gpu_power_watts", "Power that the GPU draws.", lambda gpu: gpu.power_w),
    GpuMetric("gpu_temperature_celsius", "Temperature of the GPU.", lambda gpu: gpu.temperature_c),
    GpuMetric(
        "gpu_throttled", "1 while heat or the power supply holds the GPU's clocks down.", lambda gpu: gpu.throttled
    ),
    GpuMetric("gpu_ecc_errors", "Uncorrected memory errors since the driver was loaded.", lambda gpu: gpu.ecc_errors),
)
