"""The OpenAI and Anthropic SDKs, through the proxy, to real engines."""

import asyncio
from typing import Any

import anthropic
import openai
import pytest

from tests.engines.asking import HELLO, proxy_over
from tests.engines.vllm_server import MODEL, Engines
from tests.harness.stage import Stage
from tests.harness.waiting import until

pytestmark = pytest.mark.engines

EXACT: Any = {"extra_body": {"temperature": 0, "ignore_eos": True}}


async def test_openai(up: Engines, stage: Stage) -> None:
    proxy = await proxy_over(stage, *up.both)
    async with openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="none", max_retries=0) as client:
        whole = await client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=12, **EXACT)
        assert whole.usage is not None
        assert whole.usage.completion_tokens == 12
        streamed = ""
        async for chunk in await client.chat.completions.create(
            model=MODEL, messages=HELLO, max_tokens=12, stream=True, **EXACT
        ):
            streamed += chunk.choices[0].delta.content or ""
        assert streamed == whole.choices[0].message.content
        raw = await client.chat.completions.with_raw_response.create(
            model=MODEL, messages=HELLO, max_tokens=12, **EXACT, extra_headers={"X-Request-Id": "raw-one"}
        )
        assert raw.headers["x-llmproxy-backend"] in ("a", "b")
        assert raw.headers["x-request-id"] == "raw-one"
        assert raw.parse().id == "chatcmpl-raw-one"
        text = await client.completions.create(model=MODEL, prompt="Once", max_tokens=3, **EXACT)
        assert text.choices[0].finish_reason == "length"

        async def listed() -> bool:
            return [model.id async for model in client.models.list()] == [MODEL]

        await until(listed, "the engines' models in the proxy's list")
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            await client.completions.create(model="other", prompt="hello")
        with pytest.raises(openai.BadRequestError, match="max_model_len"):
            await client.completions.create(model=MODEL, prompt="hello", max_tokens=100_000)


async def test_openai_responses(up: Engines, stage: Stage) -> None:
    proxy = await proxy_over(stage, *up.both)
    async with openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="none", max_retries=0) as client:
        whole = await client.responses.create(model=MODEL, input="Say hello.", max_output_tokens=9, temperature=0)
        assert whole.usage is not None
        assert whole.usage.output_tokens == 9
        assert (await client.responses.retrieve(whole.id)).output_text == whole.output_text
        async with client.responses.stream(
            model=MODEL, input="Say hello.", max_output_tokens=9, temperature=0
        ) as stream:
            kinds = [event.type async for event in stream]
        assert kinds[0] == "response.created"
        assert kinds[-1] == "response.completed"


async def test_openai_without_asyncio(up: Engines, stage: Stage) -> None:
    proxy = await proxy_over(stage, *up.both)

    def talk() -> tuple[str | None, str]:
        with openai.OpenAI(base_url=f"{proxy.url}/v1", api_key="none", max_retries=0) as client:
            whole = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=12, **EXACT)
            chunks: Any = client.chat.completions.create(
                model=MODEL, messages=HELLO, max_tokens=12, stream=True, **EXACT
            )
            return whole.choices[0].message.content, "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    whole, streamed = await asyncio.to_thread(talk)
    assert whole == streamed


async def test_anthropic(up: Engines, stage: Stage) -> None:
    proxy = await proxy_over(stage, *up.both)
    async with anthropic.AsyncAnthropic(base_url=proxy.url, api_key="none", max_retries=0) as client:
        whole = await client.messages.create(model=MODEL, max_tokens=9, messages=HELLO, **EXACT)
        assert whole.stop_reason == "max_tokens"
        async with client.messages.stream(model=MODEL, max_tokens=9, messages=HELLO, **EXACT) as stream:
            text = "".join([piece async for piece in stream.text_stream])
            final = await stream.get_final_message()
        assert whole.content[0].type == "text"
        assert text == whole.content[0].text
        assert final.usage.output_tokens == 9
        counted = await client.messages.count_tokens(model=MODEL, messages=HELLO)
        assert counted.input_tokens == whole.usage.input_tokens + (whole.usage.cache_read_input_tokens or 0)
        with pytest.raises(anthropic.NotFoundError, match="does not exist"):
            await client.messages.create(model="other", max_tokens=9, messages=HELLO)
