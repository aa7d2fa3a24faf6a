"""The GPUs of this machine through the real library, and what `llmproxy gpu-agent` makes of them."""

import time

import aiohttp
import pytest

from llmproxy.control.signals.nvml_library import NvmlError, NvmlLibrary
from llmproxy.control.signals.nvml_thread import Nvml
from tests.harness.processes import Running
from tests.harness.stage import Stage, chat
from tests.harness.waiting import until

pytestmark = pytest.mark.gpu


@pytest.fixture
def gpus():
    """Every GPU that can be read; none is no failure of ours."""
    library = NvmlLibrary(time.monotonic)
    try:
        found = library.read_all(time.monotonic())
    except NvmlError as error:
        pytest.skip(f"no GPU here: {error}")
    finally:
        library.close()
    if not found:
        pytest.skip("no GPU here, although there is a driver")
    return found


def test_figures_make_sense(gpus):
    for gpu in gpus:
        gauges = gpu.gauges
        assert gpu.uuid.startswith("GPU-")
        assert gpu.name
        assert gauges.memory_total_bytes is not None
        assert gauges.memory_total_bytes > 2**30
        assert 0 <= gauges.memory_used_bytes <= gauges.memory_total_bytes
        assert gauges.utilization is None or 0.0 <= gauges.utilization <= 1.0
        assert gauges.power_w is None or 0 < gauges.power_w < 3000
        assert gauges.temperature_c is None or 0 < gauges.temperature_c < 120
        assert gauges.ecc_errors is None or gauges.ecc_errors >= 0


def test_by_number_and_by_uuid_it_is_the_same(gpus):
    library = NvmlLibrary(time.monotonic)
    for gpu in gpus:
        by_uuid, by_number = library.read(gpu.uuid, 0.0), library.read(gpu.index, 0.0)
        assert by_uuid.memory_total_bytes == by_number.memory_total_bytes == gpu.gauges.memory_total_bytes
    with pytest.raises(NvmlError, match="there is no GPU"):
        library.read(1000, 0.0)
    library.close()


async def test_a_reading_is_quick(gpus):
    """Printed, not asserted: it is the driver's time."""
    nvml = Nvml(time.monotonic)
    await nvml.read(gpus[0].index, 0.0)
    took_s = []
    for _ in range(50):
        began = time.perf_counter()
        await nvml.read(gpus[0].index, 0.0)
        took_s.append(time.perf_counter() - began)
    nvml.close()
    print(
        f"\none reading of {gpus[0].name}: median {sorted(took_s)[25] * 1e3:.2f} ms, worst {max(took_s) * 1e3:.2f} ms"
    )


async def test_the_agent_shows_it_and_a_proxy_reads_it(gpus, tmp_path):
    async with Running("gpu-agent", "--port", "0", "--host", "127.0.0.1") as running:
        url = (await running.says(r"(http://127\.0\.0\.1:\d+)/gpus"))[1]
        async with aiohttp.ClientSession() as http, http.get(url + "/metrics") as response:
            assert f'uuid="{gpus[0].uuid}"' in await response.text()
        stage = Stage(tmp_path)
        try:
            engines = [await stage.backend(), await stage.backend()]
            proxy = await stage.proxy(
                {"url": engines[0].url, "id": "b1", "gpu": {"uuid": gpus[0].uuid}},
                {"url": engines[1].url, "id": "b2", "gpu": {"agent": url, "device": gpus[0].index}},
                pool={"policy": "gpu_utilization"},
            )
            for id in ("b1", "b2"):
                await until(
                    lambda: (proxy.backend(id).gauges or _NOTHING).gpu is not None,  # noqa: B023
                    f"the GPU of {id}",
                )
                gauges = proxy.backend(id).gauges
                assert gauges is not None
                assert gauges.gpu is not None
                assert gauges.gpu.memory_total_bytes == gpus[0].gauges.memory_total_bytes
            assert (await stage.ask(proxy, chat(stream=False))).status == 200
        finally:
            await stage.ended()


class _Nothing:
    gpu = None


_NOTHING = _Nothing()
