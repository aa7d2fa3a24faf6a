"""`llmproxy gpu-agent` and the source that polls it, over a real socket, with a double for NVIDIA's library."""

import os

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from llmproxy.control.signals.agent import AgentGpu, gpu_of
from llmproxy.control.signals.gpu_agent import REUSE_S, GpuAgent
from llmproxy.control.signals.nvml_thread import Nvml
from llmproxy.control.signals.source import SourceError
from llmproxy.core.backend import GpuGauges, GpuSpec
from tests.harness.nvml import compiled
from tests.harness.processes import Running

UUID = "GPU-11111111-1111-1111-1111-111111111111"
MIG = "MIG-22222222-2222-2222-2222-222222222222"


@pytest.fixture
async def agent(nvml, clock):
    agent = GpuAgent(Nvml(clock), clock, host="127.0.0.1", port=0)
    await agent.start()
    yield agent
    nvml.stick(False)
    await agent.stop()


@pytest.fixture
async def get(agent):
    async with aiohttp.ClientSession() as http:

        async def get(path):
            async with http.get(f"http://127.0.0.1:{agent.port}{path}") as response:
                text = await response.text()
                return response.status, await response.json() if "json" in response.content_type else text

        yield get


def source(agent, means, **gpu):
    return AgentGpu(GpuSpec(agent=f"http://127.0.0.1:{agent.port}", **gpu), means)


async def test_gpus_as_json(get):
    status, body = await get("/gpus")
    assert status == 200
    assert [(gpu["index"], gpu["uuid"], gpu["utilization"], gpu["ecc_errors"]) for gpu in body["gpus"]] == [
        (0, "GPU-00000000-0000-0000-0000-000000000000", 0.4, 3),
        (1, UUID, 0.9, None),
    ]
    assert await get("/health") == (200, {"ok": True})


async def test_gpus_for_prometheus(get):
    status, page = await get("/metrics")
    assert status == 200
    samples = {
        (sample.name, sample.labels.get("gpu")): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    assert samples["llmproxy_gpu_agent_up", None] == 1
    assert samples["llmproxy_gpu_utilization_ratio", "1"] == 0.9
    assert samples["llmproxy_gpu_memory_used_bytes", "0"] == 30 * 1024**3
    assert ("llmproxy_gpu_ecc_errors", "1") not in samples


async def test_the_source_reads_what_the_agent_read(agent, means, nvml):
    expected = await Nvml(agent._clock).read(1, 5.0)
    by_number = await source(agent, means, device=1).read(5.0)
    by_uuid = await source(agent, means, uuid=UUID).read(5.0)
    assert by_number.gpu == by_uuid.gpu == expected
    instance = await source(agent, means, uuid=MIG).read(5.0)
    assert (instance.gpu.memory_used_bytes, instance.gpu.utilization) == (5 * 1024.0**3, None)


async def test_many_proxies_cost_the_driver_one_reading(get, nvml, clock):
    await get("/gpus")
    calls = nvml.calls
    for _ in range(10):
        await get("/gpus")
    assert nvml.calls == calls
    clock.advance(REUSE_S * 1.1)
    _, body = await get("/gpus")
    assert nvml.calls > calls
    assert body["gpus"][0]["age_s"] == 0.0


async def test_the_age_of_a_reading_comes_along(agent, means, clock):
    await source(agent, means, device=0).read(clock())
    clock.advance(REUSE_S * 0.8)
    gauges = await source(agent, means, device=0).read(clock())
    assert gauges.gpu.at == pytest.approx(clock() - REUSE_S * 0.8, abs=1e-3)


async def test_no_driver_is_an_answer_too(get, agent, means, nvml, clock, caplog):
    nvml.absent = True
    status, body = await get("/gpus")
    assert status == 503
    assert "driver" in body["error"]
    for _ in range(3):
        with pytest.raises(SourceError, match="answered 503"):
            await source(agent, means, device=0).read(0.0)
    assert "llmproxy_gpu_agent_up 0.0" in (await get("/metrics"))[1]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    nvml.absent = False
    clock.advance(60)
    assert (await get("/gpus"))[0] == 200


async def test_a_lost_gpu_leaves_the_others(get, nvml, clock):
    nvml.lose(0)
    assert [gpu["index"] for gpu in (await get("/gpus"))[1]["gpus"]] == [1]
    assert (await get("/gpus/GPU-00000000-0000-0000-0000-000000000000"))[0] == 503


@pytest.mark.parametrize("which", [{"device": 9}, {"uuid": "GPU-0"}])
async def test_a_gpu_that_is_not_there(agent, means, which):
    with pytest.raises(SourceError):
        await source(agent, means, **which).read(0.0)


@pytest.mark.parametrize("body", ["", "[]", '{"gpus": 3}', '{"gpus": [3]}', "<html>", '{"gpus": [{"index": 1}]}'])
async def test_nonsense_is_no_gpu(site, means, body):
    site.answers["/gpus"] = body
    with pytest.raises(SourceError):
        await AgentGpu(GpuSpec(agent=site.url, device=0), means).read(0.0)


def test_values_that_make_no_sense_are_unknown():
    values = {"utilization": "high", "power_w": -1, "temperature_c": True, "throttled": 1, "mig": True, "age_s": "x"}
    assert gpu_of(values | {"memory_used_bytes": float("inf")}, 7.0) == GpuGauges(7.0, mig=True)


async def test_the_command(tmp_path):
    """As its users run it, the loader finding the double where it looks for the driver."""
    compiled(tmp_path)
    env = os.environ | {"LD_LIBRARY_PATH": str(tmp_path)}
    async with Running("gpu-agent", "--port", "0", "--host", "127.0.0.1", env=env) as running:
        url = (await running.says(r"(http://127\.0\.0\.1:\d+)/gpus"))[1]
        assert "0: Double A100" in running.err
        async with aiohttp.ClientSession() as http, http.get(url + "/gpus") as response:
            assert [gpu["utilization"] for gpu in (await response.json())["gpus"]] == [0.4, 0.9]
        running.process.terminate()
        assert await running.ends() == 0


async def test_the_command_where_there_is_no_driver(tmp_path):
    env = os.environ | {"LD_LIBRARY_PATH": str(tmp_path)}
    (tmp_path / "libnvidia-ml.so.1").write_text("this is no library")
    async with Running("gpu-agent", "--port", "0", "--host", "127.0.0.1", env=env) as running:
        url = (await running.says(r"(http://127\.0\.0\.1:\d+)/gpus"))[1]
        assert "none yet" in running.err
        async with aiohttp.ClientSession() as http, http.get(url + "/gpus") as response:
            assert response.status == 503
        running.process.terminate()
        assert await running.ends() == 0
        assert running.err.count("driver") == 1, running
