"""`llmproxy gpu-agent`: shows the GPUs of the host it runs on, for proxies elsewhere and for Prometheus.

    GET /gpus          {"gpus": [{"index": 0, "uuid": "GPU-...", "name": "...", "age_s": 0.1, "utilization": 0.5, ...}]}
    GET /gpus/<uuid>   the same for one of them, which may be a MIG instance
    GET /metrics       llmproxy_gpu_*{gpu, uuid, name} and llmproxy_gpu_agent_up
    GET /health        200

The fields of a GPU are those of `GpuGauges`; what is unknown is null. Without a driver it runs all the same, says so
once in its log, answers /gpus with 503, and shows the GPUs as soon as there is one. However many ask for them all, the
driver is asked once in `REUSE_S`. It only reads, has no secrets, and bounds what it is sent.
"""

import asyncio
import logging
import signal
import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, Final

import uvloop
from aiohttp import web

from llmproxy.control.side_port import SidePort
from llmproxy.control.signals.nvml_library import GpuReading, NvmlError
from llmproxy.control.signals.nvml_thread import Nvml
from llmproxy.core.clock import Clock
from llmproxy.telemetry.gpu import GPU
from llmproxy.telemetry.log import configure

REUSE_S: Final = 0.25
READ_TIMEOUT_S: Final = 5.0
_ESCAPES: Final = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_PAGE_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

log = logging.getLogger("llmproxy.gpu_agent")


class GpuAgent(SidePort):
    """The server."""

    def __init__(self, nvml: Nvml, clock: Clock, *, host: str, port: int) -> None:
        self._nvml = nvml
        self._clock = clock
        self._last: list[GpuReading] = []
        self._last_at = float("-inf")
        self._reading = asyncio.Lock()
        app = web.Application(client_max_size=1024)
        app.add_routes(
            [
                web.get("/gpus", self._gpus),
                web.get("/gpus/{uuid:.{1,100}}", self._gpu),
                web.get("/metrics", self._metrics),
                web.get("/health", self._health),
            ]
        )
        super().__init__(app, host=host, port=port)

    async def stop(self) -> None:
        await super().stop()
        self._nvml.close()

    async def read(self) -> list[GpuReading]:
        """Every GPU, as read a moment ago. Raises `NvmlError`."""
        async with self._reading:
            if self._clock() - self._last_at > REUSE_S:
                began = self._clock()
                try:
                    async with asyncio.timeout(READ_TIMEOUT_S):
                        self._last = await self._nvml.read_all(began)
                except TimeoutError:
                    raise NvmlError(f"the driver did not answer within {READ_TIMEOUT_S:g} s") from None
                self._last_at = began
            return self._last

    async def _gpus(self, request: web.Request) -> web.Response:
        try:
            return self._answer(await self.read())
        except NvmlError as error:
            return web.json_response({"error": str(error)}, status=503)

    async def _gpu(self, request: web.Request) -> web.Response:
        uuid = request.match_info["uuid"]
        now = self._clock()
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                gauges = await self._nvml.read(uuid, now)
        except (NvmlError, TimeoutError) as error:
            return web.json_response({"error": str(error) or "the driver does not answer"}, status=503)
        return self._answer([GpuReading(-1, uuid, "", gauges)])

    def _answer(self, gpus: Iterable[GpuReading]) -> web.Response:
        now = self._clock()
        return web.json_response({"gpus": [_entry(gpu, now) for gpu in gpus]})

    async def _metrics(self, request: web.Request) -> web.Response:
        try:
            gpus = await self.read()
            up = True
        except NvmlError:
            gpus, up = [], False
        return web.Response(body=metrics_page(gpus, up).encode(), headers={"Content-Type": _PAGE_TYPE})

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"ok": True})


def _entry(gpu: GpuReading, now: float) -> dict[str, Any]:
    gauges = asdict(gpu.gauges)
    age_s = round(max(now - gauges.pop("at"), 0.0), 3)
    return {"index": gpu.index if gpu.index >= 0 else None, "uuid": gpu.uuid, "name": gpu.name, "age_s": age_s} | gauges


def metrics_page(gpus: Iterable[GpuReading], up: bool) -> str:
    """The GPUs in Prometheus' text format."""
    lines = [
        "# HELP llmproxy_gpu_agent_up 1 while the GPUs of this host can be read.",
        "# TYPE llmproxy_gpu_agent_up gauge",
        f"llmproxy_gpu_agent_up {float(up)}",
    ]
    gpus = list(gpus)
    for metric in GPU:
        lines += [f"# HELP llmproxy_{metric.name} {metric.help}", f"# TYPE llmproxy_{metric.name} gauge"]
        for gpu in gpus:
            value = metric.value(gpu.gauges)
            if value is not None:
                lines.append(f"llmproxy_{metric.name}{{{_labels(gpu)}}} {float(value)}")
    return "\n".join(lines) + "\n"


def _labels(gpu: GpuReading) -> str:
    pairs = (("gpu", str(gpu.index)), ("uuid", gpu.uuid), ("name", gpu.name))
    return ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in pairs)


def serve_gpus(host: str, port: int) -> int:
    """Run an agent until a signal ends it. Returns the exit status."""
    configure("info")
    return uvloop.run(_serve(host, port))


async def _serve(host: str, port: int) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    agent = GpuAgent(Nvml(time.monotonic), time.monotonic, host=host, port=port)
    try:
        await agent.start()
    except OSError as error:
        log.error("cannot start: %s", error)
        return 1
    try:
        gpus = ", ".join(f"{gpu.index}: {gpu.name} ({gpu.uuid})" for gpu in await agent.read()) or "none"
    except NvmlError:
        gpus = "none yet"
    log.info("showing the GPUs of this host on http://%s:%d/gpus and /metrics; %s", host, agent.port, gpus)
    await stop.wait()
    await agent.stop()
    return 0
