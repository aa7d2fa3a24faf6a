"""Who is given work: loading, sleeping, draining and failing backends are not, and come back when they are well."""

import asyncio

import aiohttp

from llmproxy.core.backend import Status
from tests.harness.proxy import Proxy
from tests.harness.stage import Stage, chat
from tests.harness.waiting import until

QUICK = {"health": {"interval": "50ms", "unhealthy_after": 2, "healthy_after": 2, "slow_start": "0s"}}
WHOLE = chat(stream=False, max_tokens=1)


async def served_by(stage: Stage, proxy: Proxy, requests: int = 6) -> dict[str, int]:
    """Which backends answer a few requests, one after another."""
    counts: dict[str, int] = {}
    for _ in range(requests):
        answer = await stage.ask(proxy, WHOLE)
        assert answer.status == 200, answer.body
        backend = answer.header("x-llmproxy-backend") or ""
        counts[backend] = counts.get(backend, 0) + 1
    return counts


async def is_(proxy: Proxy, id: str, status: Status) -> None:
    await until(lambda: proxy.backend(id).status is status, f"{id} {status.value}, not {proxy.backend(id)}")


async def test_a_backend_that_loads_gets_no_traffic_until_it_answers(stage: Stage) -> None:
    well, loading = await stage.backend(), await stage.backend(fail="refuse")
    proxy = await stage.proxy(well, loading, pool=QUICK, healthy=False)
    await is_(proxy, "b1", Status.HEALTHY)
    await is_(proxy, "b2", Status.LOADING)
    assert await served_by(stage, proxy) == {"b1": 6}
    assert proxy.metric("llmproxy_attempts_total", backend="b2") == 0
    loading.set_fault("")
    await is_(proxy, "b2", Status.HEALTHY)
    # It never failed, so it needs no slow start.
    assert await served_by(stage, proxy) == {"b1": 3, "b2": 3}


async def test_503_from_health_is_loading_too(stage: Stage) -> None:
    loading = await stage.backend(fail="status=503@health")
    proxy = await stage.proxy(loading, pool=QUICK, healthy=False)
    await is_(proxy, "b1", Status.LOADING)
    answer = await stage.ask(proxy, WHOLE)
    assert (answer.status, answer.header("x-llmproxy-error")) == (503, "no_backend_available")
    assert int(answer.header("retry-after") or 0) > 0
    assert loading.received == 0
    (line,) = await proxy.log()
    # It was not the client who left.
    assert (line["outcome"], line["error"], line["attempts"]) == ("refused", "no_backend_available", 0)
    loading.set_fault("")
    await is_(proxy, "b1", Status.HEALTHY)
    assert await served_by(stage, proxy) == {"b1": 6}


async def test_with_nobody_ready_the_proxy_is_not(stage: Stage) -> None:
    loading = await stage.backend(fail="refuse")
    proxy = await stage.proxy(loading, pool=QUICK, healthy=False)
    await is_(proxy, "b1", Status.LOADING)
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{proxy.admin_url}/readyz") as response:
            assert response.status == 503
        async with http.get(f"{proxy.admin_url}/livez") as response:
            assert response.status == 200
        loading.set_fault("")
        await is_(proxy, "b1", Status.HEALTHY)
        async with http.get(f"{proxy.admin_url}/readyz") as response:
            assert response.status == 200


async def test_a_sleeping_engine_is_passed_over_though_its_health_is_200(stage: Stage) -> None:
    engines = await stage.backends(2)
    proxy = await stage.proxy(*engines, pool=QUICK)
    async with aiohttp.ClientSession() as http:
        for asleep, awake in (("/sleep?level=1", "/wake_up"), ("/pause", "/resume")):
            async with http.post(engines[0].url + asleep) as response:
                assert response.status == 200
            await is_(proxy, "b1", Status.SLEEPING)
            assert await served_by(stage, proxy) == {"b2": 6}
            async with http.post(engines[0].url + awake):
                pass
            await is_(proxy, "b1", Status.HEALTHY)
            assert set(await served_by(stage, proxy)) == {"b1", "b2"}


async def test_nobody_is_woken_by_panic(stage: Stage) -> None:
    """With all asleep, loading or draining there is nobody to try."""
    engines = await stage.backends(2)
    proxy = await stage.proxy(*engines, pool=QUICK)
    engines[0].set_fault("sleep")
    await is_(proxy, "b1", Status.SLEEPING)
    proxy.pool().health.drain(proxy.backend("b2"), 0.0)
    answer = await stage.ask(proxy, WHOLE)
    assert (answer.status, answer.header("x-llmproxy-error")) == (503, "no_backend_available")


async def test_failing_probes_take_a_backend_out_and_good_ones_bring_it_back(stage: Stage) -> None:
    engines = await stage.backends(2)
    proxy = await stage.proxy(*engines, pool=QUICK)
    engines[0].set_fault("status=500@health")
    await is_(proxy, "b1", Status.UNHEALTHY)
    assert await served_by(stage, proxy) == {"b2": 6}
    engines[0].set_fault("")
    await is_(proxy, "b1", Status.HEALTHY)
    assert set(await served_by(stage, proxy)) == {"b1", "b2"}
    assert proxy.metric("llmproxy_probes_total", backend="b1", result="failed") >= 2


async def test_running_streams_survive_their_backends_bad_health(stage: Stage) -> None:
    engine = await stage.backend(itl_s=0.01)
    proxy = await stage.proxy(engine, pool=QUICK)
    client, answer = await stage.streaming(proxy, chat(max_tokens=200))
    engine.set_fault("status=500@health")
    await is_(proxy, "b1", Status.UNHEALTHY)
    await client.rest(answer)
    assert len(answer.text.split()) == 200
    assert answer.events[-1] == "[DONE]"


# -- draining ----------------------------------------------------------------------------------------------------------


async def test_drain_and_undrain(stage: Stage) -> None:
    engines = await stage.backends(2, itl_s=0.005)
    proxy = await stage.proxy(*engines)
    streams = [await stage.streaming(proxy, chat(max_tokens=60)) for _ in range(4)]
    async with aiohttp.ClientSession() as http:
        base = f"{proxy.admin_url}/admin/pools"
        async with http.post(f"{base}/main/backends/b1/drain") as response:
            assert (response.status, (await response.json())["state"]) == (200, "draining")
        assert await served_by(stage, proxy) == {"b2": 6}
        for client, answer in streams:
            await client.rest(answer)
            assert (len(answer.text.split()), answer.events[-1]) == (60, "[DONE]")
        assert {answer.header("x-llmproxy-backend") for _, answer in streams} == {"b1", "b2"}
        async with http.get(base) as response:
            pool = (await response.json())["pools"][0]
        assert (pool["name"], pool["eligible"], pool["in_flight"]) == ("main", 1, 0)
        assert [(b["id"], b["state"], b["in_flight"]) for b in pool["backends"]] == [
            ("b1", "draining", 0),
            ("b2", "healthy", 0),
        ]
        async with http.post(f"{base}/main/backends/b1/undrain") as response:
            assert (await response.json())["state"] == "healthy"
        assert set(await served_by(stage, proxy)) == {"b1", "b2"}
        async with http.post(f"{base}/main/backends/b9/drain") as response:
            assert response.status == 404


async def test_undraining_lets_those_in_who_wait(stage: Stage) -> None:
    engines = await stage.backends(2, itl_s=0.005)
    proxy = await stage.proxy(*engines, each={"max_concurrency": 1})
    proxy.pool().health.drain(proxy.backend("b1"), 0.0)
    client, _ = await stage.streaming(proxy, chat(max_tokens=100_000))
    waiting = asyncio.ensure_future(stage.ask(proxy, WHOLE))
    await until(lambda: proxy.pool().queue.waiting == 1, "a queue")
    async with aiohttp.ClientSession() as http, http.post(f"{proxy.admin_url}/admin/pools/main/backends/b1/undrain"):
        pass
    assert (await waiting).header("x-llmproxy-backend") == "b1"
    client.leave()
