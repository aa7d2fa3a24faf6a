"""The clients people use work through the proxy as they do without it."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import openai
import pytest

from tests.harness.proxy import Proxy
from tests.harness.scripted import Turn
from tests.harness.stage import MODEL, Stage
from tests.harness.waiting import until

ASK: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 6}


@pytest.fixture
async def proxy(stage: Stage) -> Proxy:
    engines = await stage.backends(2)
    models = {MODEL: {"pool": "main"}, "alias": {"pool": "main", "rewrite": MODEL}}
    return await stage.proxy(*engines, models=models)


@pytest.fixture
async def client(proxy: Proxy) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="key", max_retries=0) as client:
        yield client


@pytest.fixture
async def claude(proxy: Proxy) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=proxy.url, api_key="key", max_retries=0) as client:
        yield client


async def words_of(stream: Any) -> str:
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])


# -- OpenAI ------------------------------------------------------------------------------------------------------------


async def test_chat_whole_and_streamed_say_the_same(client: openai.AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(**ASK)
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 6
    streamed = await words_of(await client.chat.completions.create(**ASK, stream=True))
    assert streamed == whole.choices[0].message.content
    aliased = await client.chat.completions.create(**ASK | {"model": "alias"})
    assert aliased.choices[0].message.content == streamed


async def test_usage_of_a_stream_is_there_when_asked_for(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 6
    assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_completions_embeddings_and_models(client: openai.AsyncOpenAI) -> None:
    text = await client.completions.create(model=MODEL, prompt="hello", max_tokens=4)
    assert len(text.choices[0].text.split()) == 4
    vectors = await client.embeddings.create(model=MODEL, input=["one", "two"], dimensions=8)
    assert [len(item.embedding) for item in vectors.data] == [8, 8]
    assert [model.id async for model in client.models.list()] == [MODEL, "alias"]
    assert (await client.models.retrieve("alias")).id == "alias"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("other")


async def test_responses_are_stored_and_found(client: openai.AsyncOpenAI) -> None:
    made = [await client.responses.create(model=MODEL, input="hello", max_output_tokens=4) for _ in range(4)]
    for response in made:
        assert (await client.responses.retrieve(response.id)).output_text == response.output_text
    async with client.responses.stream(model=MODEL, input="hello", max_output_tokens=4) as stream:
        numbers = [event.sequence_number async for event in stream]
        final = await stream.get_final_response()
    assert numbers == list(range(len(numbers)))
    assert final.output_text == made[0].output_text
    assert (await client.responses.retrieve(final.id)).id == final.id


async def test_raw_responses_show_the_proxys_headers(proxy: Proxy, client: openai.AsyncOpenAI) -> None:
    raw = await client.chat.completions.with_raw_response.create(**ASK, extra_headers={"X-Request-Id": "mine"})
    assert raw.headers["x-llmproxy-backend"] in ("b1", "b2")
    assert raw.headers["x-request-id"] == "mine"
    assert raw.request_id == "mine"
    assert raw.parse().id == "chatcmpl-mine"
    async with client.chat.completions.with_streaming_response.create(**ASK, stream=True) as streaming:
        assert streaming.headers["content-type"].startswith("text/event-stream")
        lines = [line async for line in streaming.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"


async def test_the_sync_client(proxy: Proxy) -> None:
    def use() -> tuple[str | None, str]:
        with openai.OpenAI(base_url=f"{proxy.url}/v1", api_key="key", max_retries=0) as client:
            whole = client.chat.completions.create(**ASK).choices[0].message.content
            stream = client.chat.completions.create(**ASK, stream=True)
            return whole, "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)

    whole, streamed = await asyncio.to_thread(use)
    assert whole == streamed
    assert len(streamed.split()) == 6


async def test_many_at_once(client: openai.AsyncOpenAI) -> None:
    streams = await asyncio.gather(*(client.chat.completions.create(**ASK, stream=True) for _ in range(30)))
    said = await asyncio.gather(*(words_of(stream) for stream in streams))
    assert {len(text.split()) for text in said} == {6}


async def test_errors_are_the_sdks_own(stage: Stage, proxy: Proxy, client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        await client.chat.completions.create(**ASK | {"model": "other"})
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    assert unknown.value.body == {
        "message": "The model `other` does not exist.",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }
    assert unknown.value.request_id
    with pytest.raises(openai.BadRequestError) as invalid:
        await client.post("/chat/completions", content=b'{"model": ', cast_to=object)  # type: ignore[type-var]
    assert invalid.value.code == "invalid_json"
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(**ASK | {"max_tokens": 0})
    assert "max_tokens" in refused.value.message
    with pytest.raises(openai.PermissionDeniedError) as closed:
        await client.post("/load_lora_adapter", body={}, cast_to=object)
    assert closed.value.code == "route_not_allowed"


async def test_nobody_there_is_a_503_that_says_when_to_come_back(stage: Stage) -> None:
    engine = await stage.backend(fail="status=503@health")
    proxy = await stage.proxy(engine, healthy=False)
    async with openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="key", max_retries=0) as client:
        with pytest.raises(openai.InternalServerError) as nobody:
            await client.chat.completions.create(**ASK)
    assert (nobody.value.status_code, nobody.value.code) == (503, "no_backend_available")
    assert int(nobody.value.response.headers["retry-after"]) >= 1


async def test_a_broken_stream_raises(stage: Stage) -> None:
    proxy = await stage.proxy(await stage.backend(fail="die_after=3"))
    async with openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="key", max_retries=0) as client:
        stream = await client.chat.completions.create(**ASK, stream=True)
        said = [(await anext(stream)).choices[0].delta.content for _ in range(4)]
        assert len("".join(part or "" for part in said).split()) == 3
        with pytest.raises(openai.APIError) as broken:
            await anext(stream)
    assert broken.value.code == "upstream_lost"


async def test_leaving_a_stream_frees_the_engine(stage: Stage) -> None:
    engine = await stage.backend(itl_s=0.005)
    proxy = await stage.proxy(engine)
    async with openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="key", max_retries=0) as client:
        stream = await client.chat.completions.create(**ASK | {"max_tokens": 100_000}, stream=True)
        async for _ in stream:
            break
        await stream.close()
        await until(lambda: engine.aborted == 1, "the abort")
    assert engine.in_flight == 0


async def test_an_upload_goes_through(stage: Stage) -> None:
    async def script(turn: Turn) -> None:
        await turn.answer(json.dumps({"text": f"{len(turn.body)} bytes"}).encode())

    backend = await stage.scripted(script)
    proxy = await stage.proxy(backend)
    async with openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="key", max_retries=0) as client:
        said = await client.audio.transcriptions.create(model="whisper", file=("a.wav", b"RIFF" * 50_000))
    assert said.text == f"{len(backend.bodies[0])} bytes"
    assert b"RIFF" * 50_000 in backend.bodies[0]
    assert backend.turns[0].header("authorization") == "Bearer key"


# -- Anthropic ---------------------------------------------------------------------------------------------------------


async def test_messages_whole_and_streamed_say_the_same(claude: anthropic.AsyncAnthropic) -> None:
    whole = await claude.messages.create(**ASK)
    assert (whole.stop_reason, whole.usage.output_tokens) == ("max_tokens", 6)
    assert whole.content[0].type == "text"
    async with claude.messages.stream(**ASK) as stream:
        streamed = "".join([text async for text in stream.text_stream])
        final = await stream.get_final_message()
    assert streamed == whole.content[0].text
    assert final.usage.output_tokens == 6
    kinds = [event.type async for event in await claude.messages.create(**ASK, stream=True)]
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    assert (await claude.messages.count_tokens(model=MODEL, messages=ASK["messages"])).input_tokens > 0


async def test_anthropics_errors_are_its_sdks_own(claude: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as unknown:
        await claude.messages.create(**ASK | {"model": "other"})
    assert unknown.value.body == {
        "type": "error",
        "error": {"type": "not_found_error", "message": "The model `other` does not exist."},
    }


async def test_a_broken_message_stream_raises(stage: Stage) -> None:
    proxy = await stage.proxy(await stage.backend(fail="die_after=3"))
    async with anthropic.AsyncAnthropic(base_url=proxy.url, api_key="key", max_retries=0) as client:
        with pytest.raises(anthropic.APIStatusError) as broken:
            async for _ in await client.messages.create(**ASK, stream=True):
                pass
    assert "lost" in broken.value.message


async def test_the_sync_anthropic_client(proxy: Proxy) -> None:
    def use() -> str:
        with (
            anthropic.Anthropic(base_url=proxy.url, api_key="key", max_retries=0) as client,
            client.messages.stream(**ASK) as stream,
        ):
            return "".join(stream.text_stream)

    assert len((await asyncio.to_thread(use)).split()) == 6
