"""NVIDIA's management library through nvidia-ml-py. Every call here may block: for `nvml_thread.py` only.

What a GPU or a driver cannot say (a MIG instance its utilisation, an old driver its throttling) stays unknown. A GPU
that is lost, like a driver that is not there, is in the log once and tried again every `REOPEN_S`, with the library
opened anew; other GPUs are read in the meantime.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from llmproxy.core.backend import GpuGauges
from llmproxy.core.clock import Clock

REOPEN_S: Final = 15.0
_LIBRARY: Final = ""

_log = logging.getLogger("llmproxy.control.signals.nvml")

_HEAT_OR_POWER_SUPPLY: Final = 0x08 | 0x20 | 0x40 | 0x80
"""Of NVML's clock event reasons: hardware slowdown, software and hardware thermal slowdown, power brake."""


class NvmlError(Exception):
    """It cannot be read; the message says why. `reported`: that is in the log already."""

    def __init__(self, reason: str, *, reported: bool = False) -> None:
        super().__init__(reason)
        self.reported = reported


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One GPU: who it is, and its gauges."""

    index: int
    uuid: str
    name: str
    gauges: GpuGauges


def is_throttled(reasons: int | None) -> bool | None:
    """From the bits of NVML's clock event reasons, which DCGM passes on unchanged."""
    return None if reasons is None else bool(reasons & _HEAT_OR_POWER_SUPPLY)


class NvmlLibrary:
    """The library, opened when first needed. Not for several threads at once."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._nvml: Any = None
        """The module `pynvml` while the library is open."""
        self._handles: dict[int | str, Any] = {}
        self._told: dict[int | str, str] = {}
        """What is wrong with a GPU, or with the library ("") itself: in the log once, until it is well again."""
        self._not_before: dict[int | str, float] = {}
        """When each of them is tried again."""

    def read(self, which: int | str, now: float) -> GpuGauges:
        """The gauges of the GPU with this number or UUID. Raises `NvmlError`."""
        self._open(which)
        try:
            gauges = self._gauges(self._handle(which), now)
        except self._nvml.NVMLError as error:
            raise self._failed(error, which) from None
        self._well(which, f"GPU {which}")
        return gauges

    def read_all(self, now: float) -> list[GpuReading]:
        """Every GPU that can be read. Raises `NvmlError` when there is no telling which."""
        self._open(_LIBRARY)
        nvml = self._nvml
        try:
            count = nvml.nvmlDeviceGetCount()
        except nvml.NVMLError as error:
            raise self._failed(error, _LIBRARY) from None
        found = []
        for index in range(count):
            try:
                gauges = self.read(index, now)
                handle = self._handle(index)
                uuid, name = self._ask(nvml.nvmlDeviceGetUUID, handle), self._ask(nvml.nvmlDeviceGetName, handle)
            except (NvmlError, nvml.NVMLError):
                continue
            found.append(GpuReading(index, uuid or "", name or "", gauges))
        return found

    def close(self) -> None:
        """Give the library back."""
        nvml, self._nvml = self._nvml, None
        self._handles.clear()
        if nvml is not None:
            try:
                nvml.nvmlShutdown()
            except nvml.NVMLError as error:
                _log.debug("closing NVML: %s", error)

    def _open(self, which: int | str) -> None:
        """Have the library open for `which`."""
        for what in (_LIBRARY, which):
            if self._clock() < self._not_before.get(what, float("-inf")):
                raise NvmlError(self._told[what], reported=True)
        if self._not_before.pop(which, None) is not None:
            # A GPU that was reset is another one to the library: only a library opened since then finds it.
            self.close()
        if self._nvml is not None:
            return
        try:
            import pynvml
        except ImportError:
            raise self._unwell(_LIBRARY, "nvidia-ml-py is not installed: pip install 'llmproxy-gateway[gpu]'") from None
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise self._unwell(_LIBRARY, f"no usable NVIDIA driver ({error})") from None
        self._nvml = pynvml
        self._well(_LIBRARY, "NVML")

    def _unwell(self, what: int | str, reason: str) -> NvmlError:
        """Not before `REOPEN_S` again."""
        self._not_before[what] = self._clock() + REOPEN_S
        if self._told.get(what) != reason:
            self._told[what] = reason
            _log.warning("this host's GPUs: %s; traffic goes on without these gauges", reason)
        return NvmlError(reason, reported=True)

    def _well(self, what: int | str, name: str) -> None:
        self._not_before.pop(what, None)
        if self._told.pop(what, None) is not None:
            _log.info("this host's GPUs: %s can be read again", name)

    def _handle(self, which: int | str) -> Any:
        handle = self._handles.get(which)
        if handle is None:
            nvml = self._nvml
            by_number = isinstance(which, int)
            handle = nvml.nvmlDeviceGetHandleByIndex(which) if by_number else nvml.nvmlDeviceGetHandleByUUID(which)
            self._handles[which] = handle
        return handle

    def _gauges(self, handle: Any, now: float) -> GpuGauges:
        nvml, ask = self._nvml, self._ask
        rates = ask(nvml.nvmlDeviceGetUtilizationRates, handle)
        memory = ask(nvml.nvmlDeviceGetMemoryInfo, handle)
        power_mw = ask(nvml.nvmlDeviceGetPowerUsage, handle)
        reasons = ask(nvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle)
        mig = ask(nvml.nvmlDeviceGetMigMode, handle)
        return GpuGauges(
            at=now,
            utilization=None if rates is None else rates.gpu / 100,
            memory_used_bytes=None if memory is None else float(memory.used),
            memory_total_bytes=None if memory is None else float(memory.total),
            power_w=None if power_mw is None else power_mw / 1000,
            temperature_c=ask(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
            throttled=is_throttled(reasons),
            ecc_errors=ask(
                nvml.nvmlDeviceGetTotalEccErrors,
                handle,
                nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
                nvml.NVML_VOLATILE_ECC,
            ),
            mig=None if mig is None else mig[0] == nvml.NVML_DEVICE_MIG_ENABLE,
        )

    def _ask(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """What the call says; None for what this GPU or driver cannot tell."""
        nvml = self._nvml
        try:
            return call(*arguments)
        except nvml.NVMLError as error:
            if error.value in (
                nvml.NVML_ERROR_NOT_SUPPORTED,
                nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
                nvml.NVML_ERROR_NO_PERMISSION,
                nvml.NVML_ERROR_INVALID_ARGUMENT,
                nvml.NVML_ERROR_NO_DATA,
                nvml.NVML_ERROR_DEPRECATED,
            ):
                return None
            raise

    def _failed(self, error: Any, which: int | str) -> NvmlError:
        nvml = self._nvml
        what = "NVML" if which == _LIBRARY else f"GPU {which}"
        self._handles.pop(which, None)
        if error.value in (nvml.NVML_ERROR_NOT_FOUND, nvml.NVML_ERROR_INVALID_ARGUMENT):
            # Nothing is wrong with the library, nor with the other GPUs.
            return NvmlError(f"there is no {what}")
        if error.value in (nvml.NVML_ERROR_UNINITIALIZED, nvml.NVML_ERROR_DRIVER_NOT_LOADED):
            self.close()
        return self._unwell(which, f"{what}: {error}")
