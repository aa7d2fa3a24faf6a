"""`llmproxy calibrate`, against emulated engines that run a known profile, and against what is no such engine."""

import re
import socket
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from typer.testing import CliRunner

from llmproxy.calibrate.engine import EngineError
from llmproxy.calibrate.run import Wanted, calibrate
from llmproxy.cli import app
from llmproxy.sim.profile import Profile, read_profile
from tests.harness.processes import EmulatedProcess, Running
from tests.harness.stage import Stage, chat

KNOWN = Profile(
    name="known",
    kv_blocks=1000,
    block_size=32,
    max_batched_tokens=256,
    max_num_seqs=4,
    overhead_s=0.0,
    base_s=4e-3,
    token_s=3e-4,
    bend_tokens=1 << 30,
    base_above_s=4e-3,
    token_above_s=3e-4,
    kv_s=1e-6,
    attention_s=1e-8,
    sequence_s=2e-3,
    ttft_s=4e-3,
)


async def test_an_emulated_engine_gives_its_profile_back(tmp_path: Path) -> None:
    known, out = tmp_path / "known.yaml", tmp_path / "found.yaml"
    known.write_text(KNOWN.yaml())
    async with EmulatedProcess("--profile", str(known), "--max-model-len", "640") as engine:
        sizes = ("--max-num-seqs", "4", "--max-batched-tokens", "256")
        async with Running("calibrate", "--backend", engine.url, "--out", str(out), *sizes) as command:
            assert await command.ends(90.0) == 0, command
            assert "a prompt of 51" in command.err
            assert "4 decoding" in command.err
            assert "The profile misses what was measured by" in command.err
    found = read_profile(out)
    assert (found.kv_blocks, found.block_size, found.max_batched_tokens, found.max_num_seqs) == (1000, 32, 256, 4)
    # A machine that is busy makes times longer, and none shorter. How near they come is tested in virtual time.
    for tokens in (32, 128, 500):
        assert found.isolated_ttft_s(tokens) > 0.6 * KNOWN.isolated_ttft_s(tokens)
    for decoding in (1, 2, 4):
        step = decoding, decoding * 60, 0, 0
        assert found.step_s(*step) > 0.6 * KNOWN.step_s(*step)
    assert found.isolated_ttft_s(500) > 1.5 * found.isolated_ttft_s(32)

    trace = tmp_path / "trace.csv"
    trace.write_text("timestamp_ms,input_tokens,output_tokens\n0,300,5\n40,200,8\n")
    words = ["simulate", "--profile", str(out), "--trace", str(trace), "--policy", "round_robin", "--backends", "2"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "1,000 blocks of 32 tokens" in result.output


def nobody() -> str:
    """An address at which nobody listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{found.getsockname()[1]}"


async def fails(*urls: str, **options: Any) -> str:
    with pytest.raises(EngineError) as caught:
        await calibrate(Wanted(urls, **options), lambda line: None)
    return str(caught.value)


async def test_an_engine_that_is_down() -> None:
    url = nobody()
    assert await fails(url) == f"{url}/v1/models: cannot be reached: Connection refused"


def test_the_command_says_why_it_failed(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["calibrate", "--backend", nobody(), "--out", str(tmp_path / "x.yaml")])
    assert result.exit_code == 1
    assert "error: http://127.0.0.1" in result.output
    assert "cannot be reached" in result.output
    assert not (tmp_path / "x.yaml").exists()
    result = CliRunner().invoke(app, ["calibrate", "--backend", nobody(), "--out", str(tmp_path / "no" / "x.yaml")])
    assert "there is no folder to write it to" in result.output


async def test_a_proxy_is_no_engine(stage: Stage) -> None:
    proxy = await stage.proxy(await stage.backend())
    # Its models are not known at once.
    assert re.search("/metrics answered 403|names no model", await fails(proxy.url))


async def test_a_key_and_a_model_that_are_not_right(stage: Stage) -> None:
    engine = await stage.backend(api_key="secret")
    assert "it wants a key (--key)" in await fails(engine.url)
    assert "serves no model 'other' (it has: emulated)" in await fails(engine.url, key="secret", model="other")


async def test_an_engine_that_is_busy(stage: Stage) -> None:
    engine = await stage.backend(itl_s=0.05)
    _, _ = await stage.streaming(engine, chat(max_tokens=2000))  # type: ignore[arg-type]
    assert "has 1 requests of others: calibrate an engine that is idle" in await fails(engine.url)


async def test_engines_that_are_not_alike(stage: Stage) -> None:
    one, other = await stage.backend(), await stage.backend(max_model_len=5000)
    assert "are not alike" in await fails(one.url, other.url)


@pytest.mark.parametrize(
    ("metrics", "answer", "words"),
    [
        ("vllm:num_requests_running 0\n", None, "does not say how much fits into the KV cache"),
        (None, ("application/json", "{}"), "does not stream: asked for a stream, it answered with application/json"),
        (None, ("text/event-stream", "data: [DONE]\n\n"), "ended a stream without a token"),
        (
            None,
            ("text/event-stream", 'data: {"choices": [{"text": "a"}]}\n\ndata: [DONE]\n\n'),
            "does not say how many tokens a prompt has",
        ),
        (None, ("text/event-stream", 'data: {"error": {"message": "no"}}\n\n'), "broke a stream off"),
    ],
    ids=["metrics", "whole", "empty", "usage", "error"],
)
async def test_engines_that_say_too_little(metrics: str | None, answer: tuple[str, str] | None, words: str) -> None:
    page = metrics or 'vllm:cache_config_info{block_size="16",num_gpu_blocks="100"} 1\n'

    async def say(request: web.Request) -> web.Response:
        if request.path == "/v1/models":
            return web.json_response({"data": [{"id": "m"}]})
        if request.path == "/metrics":
            return web.Response(text=page)
        if request.path == "/v1/completions" and answer is not None:
            return web.Response(content_type=answer[0], text=answer[1])
        return web.Response(status=404)

    site = web.Application()
    site.router.add_route("*", "/{path:.*}", say)
    runner = web.AppRunner(site)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        assert words in await fails(f"http://127.0.0.1:{runner.addresses[0][1]}")
    finally:
        await runner.cleanup()
