"""The clients people use accept what the emulated server says."""

import anthropic
import openai
import pytest

from llmproxy.emulator import Emulator, EmulatorOptions, EngineOptions

FAST = EngineOptions(ttft_s=0.005, itl_s=0.001, prefill_s_per_token=0.0)


async def test_openai() -> None:
    async with (
        Emulator(EmulatorOptions(engine=FAST, models=("m",))) as emulator,
        openai.AsyncOpenAI(base_url=f"{emulator.url}/v1", api_key="x", max_retries=0) as client,
    ):
        whole = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "hello"}], max_tokens=5
        )
        assert whole.usage is not None
        assert whole.usage.completion_tokens == 5
        streamed = ""
        async for chunk in await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "hello"}], max_tokens=5, stream=True
        ):
            streamed += chunk.choices[0].delta.content or ""
        assert streamed == whole.choices[0].message.content
        text = await client.completions.create(model="m", prompt="hello", max_tokens=5)
        assert text.choices[0].finish_reason == "length"
        vectors = await client.embeddings.create(model="m", input=["one", "two"], dimensions=8)
        assert [len(item.embedding) for item in vectors.data] == [8, 8]
        assert [model.id async for model in client.models.list()] == ["m"]
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            await client.completions.create(model="other", prompt="hello")


async def test_openai_responses() -> None:
    async with (
        Emulator(EmulatorOptions(engine=FAST, models=("m",), output_tokens=4)) as emulator,
        openai.AsyncOpenAI(base_url=f"{emulator.url}/v1", api_key="x", max_retries=0) as client,
    ):
        whole = await client.responses.create(model="m", input="hello")
        assert whole.status == "completed"
        assert len(whole.output_text.split()) == 4
        assert (await client.responses.retrieve(whole.id)).output_text == whole.output_text
        async with client.responses.stream(model="m", input="hello") as stream:
            numbers = [event.sequence_number async for event in stream]
            final = await stream.get_final_response()
        assert numbers == list(range(len(numbers)))
        assert final.output_text == whole.output_text


async def test_anthropic() -> None:
    async with (
        Emulator(EmulatorOptions(engine=FAST, models=("m",))) as emulator,
        anthropic.AsyncAnthropic(base_url=emulator.url, api_key="x", max_retries=0) as client,
    ):
        whole = await client.messages.create(model="m", max_tokens=5, messages=[{"role": "user", "content": "hello"}])
        assert whole.stop_reason == "max_tokens"
        assert whole.content[0].type == "text"
        async with client.messages.stream(
            model="m", max_tokens=5, messages=[{"role": "user", "content": "hello"}]
        ) as stream:
            text = "".join([piece async for piece in stream.text_stream])
            final = await stream.get_final_message()
        assert text == whole.content[0].text
        assert final.usage.output_tokens == 5
        counted = await client.messages.count_tokens(model="m", messages=[{"role": "user", "content": "hello"}])
        assert counted.input_tokens == whole.usage.input_tokens
        with pytest.raises(anthropic.NotFoundError, match="does not exist"):
            await client.messages.create(model="other", max_tokens=5, messages=[{"role": "user", "content": "hello"}])
