"""A client that leaves stops its engine's work; idle connections end before the engine ends them."""

import pytest

from tests.engines.asking import CHAT, GENERATING, Asking, body_for, chat, proxy_over
from tests.engines.tap import Tap
from tests.engines.vllm_server import Engines
from tests.harness.client import Client
from tests.harness.stage import Stage
from tests.harness.waiting import until

pytestmark = pytest.mark.engines


@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("path", GENERATING)
async def test_a_client_that_leaves_stops_the_engine(
    up: Engines, stage: Stage, path: str, stream: bool, reset: bool
) -> None:
    proxy = await proxy_over(stage, up.a)
    finished = await up.a.metric("request_success_total", finished_reason="length")
    asking = Asking(proxy.port, body_for(path, up.endless, stream=stream), path, [("X-Request-Id", "leaver")])
    await up.a.has_running(1)
    await asking.leave(reset=reset)
    await up.a.has_running(0)
    assert await up.a.metric("request_success_total", finished_reason="length") == finished
    record = await proxy.record("leaver")
    assert (record["outcome"], record["error"]) == ("abandoned", None)
    assert proxy.metric("llmproxy_abandoned_total") == 1
    assert (await stage.ask(proxy, chat())).status == 200


async def test_an_idle_connection_is_given_up_before_the_engine_closes_it(up: Engines, stage: Stage) -> None:
    async with Tap(up.a.port) as tap:
        proxy = await proxy_over(stage, {"url": tap.url, "id": "a"})
        beside = await Client.open(up.a.port)
        assert (await stage.ask(proxy, chat(), id="first")).status == 200
        assert (await beside.ask("GET", "/health")).status == 200
        line = tap.line_with("first")
        await until(lambda: line.closed_by, "the end of an idle connection", 30.0)
        assert line.closed_by == "proxy"
        # Engines still do close idle ones; were that to change, this file could go.
        assert await beside.at_end()
        beside.leave()
        assert (await stage.ask(proxy, chat(), id="second")).status == 200
        assert tap.line_with("second") is not line
        assert (await proxy.record("second"))["attempts"] == 1


async def test_a_connection_that_the_engine_closes_while_idle_costs_nothing(up: Engines, stage: Stage) -> None:
    async with Tap(up.a.port) as tap:
        proxy = await proxy_over(stage, {"url": tap.url, "id": "a"}, pool={"timeouts": {"keepalive": "60s"}})
        assert (await stage.ask(proxy, chat(), id="first")).status == 200
        line = tap.line_with("first")
        await until(lambda: line.closed_by, "the end of an idle connection", 30.0)
        assert line.closed_by == "engine"
        assert (await stage.ask(proxy, chat(), id="second")).status == 200
        assert (await proxy.record("second"))["retries"] == []


async def test_connections_are_used_again(up: Engines, stage: Stage) -> None:
    async with Tap(up.a.port) as tap:
        proxy = await proxy_over(stage, {"url": tap.url, "id": "a"})
        for number in range(3):
            assert (await stage.ask(proxy, body_for(CHAT, stream=number == 1), id=f"number-{number}")).status == 200
        assert tap.line_with("number-0") is tap.line_with("number-1") is tap.line_with("number-2")


READ_BY_THE_PROXY = {
    "engine_sleep_state": {"engine", "model_name", "sleep_state"},
    "num_requests_running": {"engine", "model_name"},
    "num_requests_waiting": {"engine", "model_name"},
    "num_requests_waiting_by_reason": {"engine", "model_name", "reason"},
    "kv_cache_usage_perc": {"engine", "model_name"},
    "prefix_cache_queries_total": {"engine", "model_name"},
    "prefix_cache_hits_total": {"engine", "model_name"},
    "prompt_tokens_total": {"engine", "model_name"},
    "generation_tokens_total": {"engine", "model_name"},
    "num_preemptions_total": {"engine", "model_name"},
    "request_success_total": {"engine", "model_name", "finished_reason"},
    "admission_rejections_total": {"model_name", "reason"},
    "time_to_first_token_seconds_bucket": {"engine", "model_name", "le"},
    "inter_token_latency_seconds_bucket": {"engine", "model_name", "le"},
    "e2e_request_latency_seconds_bucket": {"engine", "model_name", "le"},
    "request_queue_time_seconds_bucket": {"engine", "model_name", "le"},
}


async def test_the_engines_metrics_have_the_names_we_know(up: Engines) -> None:
    metrics = await up.a.metrics()
    found = {name: set(metrics[f"vllm:{name}"][0][0]) for name in READ_BY_THE_PROXY if f"vllm:{name}" in metrics}
    assert found == READ_BY_THE_PROXY
    assert "cache_config_info" in {name.removeprefix("vllm:") for name in metrics}
