"""The emulated server on real sockets: its API, and what it does when clients leave."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from llmproxy.emulator import Emulator, EmulatorOptions, EngineOptions

FAST = EngineOptions(ttft_s=0.005, itl_s=0.001, prefill_s_per_token=0.0)
NEVER = EngineOptions(ttft_s=3600.0)
ENDLESS = EngineOptions(ttft_s=0.0, itl_s=0.001, prefill_s_per_token=0.0)

HELLO = [{"role": "user", "content": "hello"}]
Post = Callable[..., Any]


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


async def until(condition: Callable[[], bool], what: str, timeout_s: float = 10.0) -> None:
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"never came: {what}"
        await asyncio.sleep(0.002)


def events(text: str) -> list[Any]:
    """The data of unnamed events, decoded, `[DONE]` as it is."""
    assert text.endswith("\n\n")
    found = []
    for block in text[:-2].split("\n\n"):
        assert block.startswith("data: "), block
        data = block.removeprefix("data: ")
        found.append(data if data == "[DONE]" else json.loads(data))
    return found


async def chat(
    session: aiohttp.ClientSession, emulator: Emulator, headers: dict[str, str] | None = None, **body: Any
) -> dict[str, Any]:
    asked = {"model": "emulated", "messages": HELLO} | body
    async with session.post(f"{emulator.url}/v1/chat/completions", json=asked, headers=headers) as response:
        assert response.status == 200, await response.text()
        answer: dict[str, Any] = await response.json()
        return answer


async def stream(session: aiohttp.ClientSession, emulator: Emulator, path: str = "chat", **body: Any) -> list[Any]:
    routes: dict[str, tuple[str, dict[str, Any]]] = {
        "chat": ("/v1/chat/completions", {"messages": HELLO}),
        "text": ("/v1/completions", {"prompt": "hello"}),
    }
    url, basis = routes[path]
    async with session.post(emulator.url + url, json=basis | {"stream": True} | body) as response:
        assert response.status == 200, await response.text()
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        return events(await response.text())


def content(chunks: list[Any]) -> str:
    parts = [choice for chunk in chunks if chunk != "[DONE]" for choice in chunk["choices"]]
    return "".join(part["delta"].get("content", "") if "delta" in part else part["text"] for part in parts)


async def test_a_chat_stream_has_vllms_events(session: aiohttp.ClientSession) -> None:
    async with Emulator(EmulatorOptions(engine=FAST)) as emulator:
        *chunks, done = await stream(session, emulator, max_tokens=3)
        assert done == "[DONE]"
        assert len(chunks) == 4
        assert all(chunk["object"] == "chat.completion.chunk" for chunk in chunks)
        assert all("usage" not in chunk for chunk in chunks)
        assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
        assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
        assert reasons == [None, None, None, "length"]
        assert chunks[-1]["choices"][0]["delta"]["content"] != ""


async def test_every_event_is_a_chunk_of_its_own() -> None:
    async with Emulator(EmulatorOptions(engine=FAST)) as emulator:
        reader, writer = await asyncio.open_connection("127.0.0.1", emulator.port)
        body = json.dumps({"messages": HELLO, "stream": True, "max_tokens": 2}).encode()
        writer.write(_post("/v1/chat/completions", body))
        assert b"transfer-encoding: chunked" in await reader.readuntil(b"\r\n\r\n")
        found = []
        while (size := int(await reader.readline(), 16)) > 0:
            found.append(await reader.readexactly(size))
            assert await reader.readline() == b"\r\n"
        assert await reader.readline() == b"\r\n"
        assert len(found) == 4
        assert all(chunk.startswith(b"data: ") and chunk.endswith(b"\n\n") for chunk in found)
        writer.close()


async def test_usage_comes_in_a_chunk_of_its_own_or_in_all(session: aiohttp.ClientSession) -> None:
    async with Emulator(EmulatorOptions(engine=FAST)) as emulator:
        options = {"include_usage": True}
        *_, last, _ = await stream(session, emulator, max_tokens=5, stream_options=options)
        assert last["choices"] == []
        assert last["usage"]["completion_tokens"] == 5
        assert last["usage"]["total_tokens"] == last["usage"]["prompt_tokens"] + 5
        options = {"include_usage": True, "continuous_usage_stats": True}
        *chunks, _ = await stream(session, emulator, max_tokens=3, stream_options=options)
        assert [chunk["usage"]["completion_tokens"] for chunk in chunks] == [1, 1, 2, 3, 3]


async def test_a_repeated_prompt_is_cached_and_usage_says_so(session: aiohttp.ClientSession) -> None:
    async with Emulator(EmulatorOptions(engine=FAST)) as emulator:
        messages = [{"role": "user", "content": "tell me everything about the sea " * 20}]
        first = (await chat(session, emulator, messages=messages))["usage"]
        again = (await chat(session, emulator, messages=messages))["usage"]
        salted = (await chat(session, emulator, messages=messages, cache_salt="mine"))["usage"]
        assert first["prompt_tokens_details"] is None
        assert again["prompt_tokens_details"]["cached_tokens"] >= first["prompt_tokens"] - 16
        assert salted["prompt_tokens_details"] is None
        async with session.post(f"{emulator.url}/reset_prefix_cache") as response:
            assert response.status == 200
        assert (await chat(session, emulator, messages=messages))["usage"]["prompt_tokens_details"] is None


async def test_the_next_turn_finds_the_whole_conversation_cached(session: aiohttp.ClientSession) -> None:
    async with Emulator(EmulatorOptions(engine=FAST)) as emulator:
        first = await chat(session, emulator, max_tokens=200)
        said = first["choices"][0]["message"]["content"]
        turn = [*HELLO, {"role": "assistant", "content": said}, {"role": "user", "content": "and then?"}]
        second = await chat(session, emulator, messages=turn)
        assert second["usage"]["prompt_tokens_details"]["cached_tokens"] > 190


async def test_answers_are_the_same_streamed_or_whole_here_or_elsewhere(session: aiohttp.ClientSession) -> None:
    async with Emulator(EmulatorOptions(engine=FAST)) as one, Emulator(EmulatorOptions(engine=FAST)) as other:
        whole = (await chat(session, one, max_tokens=40))["choices"][0]["message"]["content"]
        assert content(await stream(session, one, max_tokens=40)) == whole
        assert content(await stream(session, other, max_tokens=40)) == whole
        text = content(await stream(session, one, "text", max_tokens=40))
        assert content(await stream(session, other, "text", max_tokens=40)) == text


async def test_a_broken_off_answer_can_be_continued_elsewhere(session: aiohttp.ClientSession) -> None:
    async with Emulator(EmulatorOptions(engine=FAST)) as one, Emulator(EmulatorOptions(engine=FAST)) as other:
        whole = (await chat(session, one, max_tokens=30))["choices"][0]["message"]["content"]
        partial = [*HELLO, {"role": "assistant", "content": whole[: 4 * 11]}]
        how: dict[str, Any] = {"continue_final_message": True, "add_generation_prompt": False}
        rest = await chat(session, other, messages=partial, max_tokens=19, **how)
        assert whole[: 4 * 11] + rest["choices"][0]["message"]["content"] == whole


async def test_lengths_and_reasons(session: aiohttp.ClientSession) -> None:
    async with Emulator(EmulatorOptions(engine=FAST, output_tokens=7)) as emulator:
        natural = await chat(session, emulator)
        assert (natural["usage"]["completion_tokens"], natural["choices"][0]["finish_reason"]) == (7, "stop")
        limited = await chat(session, emulator, max_completion_tokens=9)
        assert (limited["usage"]["completion_tokens"], limited["choices"][0]["finish_reason"]) == (9, "length")
        word = limited["choices"][0]["message"]["content"].split()[4]
        stopped = await chat(session, emulator, max_tokens=9, stop=word)
        assert stopped["choices"][0]["stop_reason"] == word
        assert stopped["choices"][0]["finish_reason"] == "stop"
        assert word not in stopped["choices"][0]["message"]["content"]


async def test_completions_take_lists_and_token_ids(session: aiohttp.ClientSession) -> None:
    async with Emulator(EmulatorOptions(engine=FAST)) as emulator:
        url = f"{emulator.url}/v1/completions"
        async with session.post(url, json={"prompt": ["one", "two"], "n": 2, "max_tokens": 4}) as response:
            answer = await response.json()
        assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
        assert answer["usage"]["completion_tokens"] == 16
        assert answer["usage"]["prompt_tokens"] == 2
        async with session.post(f"{emulator.url}/tokenize", json={"prompt": "one, two"}) as response:
            ids = (await response.json())["tokens"]
        async with session.post(url, json={"prompt": ids, "max_tokens": 4}) as response:
            by_ids = await response.json()
        async with session.post(url, json={"prompt": "one, two", "max_tokens": 4}) as response:
            by_text = await response.json()
        assert by_ids["choices"][0]["text"] == by_text["choices"][0]["text"]
        async with session.post(f"{emulator.url}/detokenize", json={"tokens": ids}) as response:
            assert await response.json() == {"prompt": "one, two"}


async def test_several_choices_are_streamed_side_by_side(session: aiohttp.ClientSession) -> None:
    async with Emulator(EmulatorOptions(engine=FAST)) as emulator:
        *chunks, done = await stream(session, emulator, n=3, max_tokens=4)
        assert done == "[DONE]"
        for index in range(3):
            mine = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == index]
            assert [choice["finish_reason"] for choice in mine] == [None, None, None, None, "length"]


async def test_token_ids_on_request(session: aiohttp.ClientSession) -> None:
    async with Emulator(EmulatorOptions(engine=FAST)) as emulator:
        first, *chunks, _ = await stream(session, emulator, max_tokens=3, return_token_ids=True)
        async with session.post(f"{emulator.url}/tokenize", json={"messages": HELLO}) as response:
            assert first["prompt_token_ids"] == (await response.json())["tokens"]
        assert [len(chunk["choices"][0]["token_ids"]) for chunk in chunks] == [1, 1, 1]


async def test_the_request_id_becomes_the_answers(session: aiohttp.ClientSession) -> None:
    async with Emulator(EmulatorOptions(engine=FAST, request_id_headers=True, name="left")) as emulator:
        assert (await chat(session, emulator, {"X-Request-Id": "abc"}))["id"] == "chatcmpl-abc"
        made = (await chat(session, emulator))["id"]
        assert made.startswith("chatcmpl-")
        headers = {"X-Request-Id": "def"}
        async with session.post(f"{emulator.url}/v1/completions", json={"prompt": "x"}, headers=headers) as response:
            assert (await response.json())["id"] == "cmpl-def"
            assert response.headers["x-request-id"] == "def"
            assert response.headers["x-emulator"] == "left"
        async with session.get(f"{emulator.url}/emulator/state") as response:
            state = await response.json()
        assert state["served_ids"] == ["abc", "def"]
        assert (state["served"], state["received"], state["name"]) == (3, 3, "left")


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/v1/chat/completions", {"model": "other", "messages": HELLO}, 404, "The model `other` does not exist."),
        ("/v1/chat/completions", {"messages": []}, 400, "messages: at least one message is needed"),
        ("/v1/chat/completions", {"messages": HELLO, "max_tokens": 0}, 400, "max_tokens must be at least 1, got 0."),
        ("/v1/chat/completions", {"messages": HELLO, "stream": 1}, 400, "stream: Input should be a valid bool"),
        ("/v1/completions", {"prompt": 3}, 400, "prompt: a string, token ids, or a list of them is needed"),
        ("/v1/embeddings", {"input": "x", "model": "other"}, 404, "The model `other` does not exist."),
    ],
)
async def test_errors_have_vllms_shape(
    session: aiohttp.ClientSession, path: str, body: dict[str, Any], status: int, message: str
) -> None:
    async with Emulator(EmulatorOptions(engine=FAST)) as emulator:
        async with session.post(emulator.url + path, json=body) as response:
            assert response.status == status
            error = (await response.json())["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert (error["message"], error["code"]) == (message, status)


async def test_errors_under_messages_have_anthropics_shape(session: aiohttp.ClientSession) -> None:
    async with Emulator(EmulatorOptions(engine=FAST)) as emulator:
        body = {"model": "other", "messages": HELLO, "max_tokens": 3}
        async with session.post(f"{emulator.url}/v1/messages", json=body) as response:
            assert response.status == 404
            answer = await response.json()
        assert answer["type"] == "error"
        assert answer["error"]["message"] == "The model `other` does not exist."


async def test_what_is_no_json_no_route_and_no_method(session: aiohttp.ClientSession) -> None:
    async with Emulator(EmulatorOptions(engine=FAST)) as emulator:
        url = f"{emulator.url}/v1/completions"
        async with session.post(url, data=b"{", headers={"content-type": "application/json"}) as response:
            assert response.status == 400
        async with session.post(url, data=b"{}", headers={"content-type": "text/plain"}) as response:
            assert response.status == 400
        async with session.post(f"{emulator.url}/v1/nothing", json={}) as response:
            assert (response.status, await response.json()) == (404, {"detail": "Not Found"})
        async with session.get(url) as response:
            assert response.status == 405


async def test_the_api_key_guards_v1_only(session: aiohttp.ClientSession) -> None:
    async with Emulator(EmulatorOptions(engine=FAST, api_key="sesame")) as emulator:
        async with session.get(f"{emulator.url}/v1/models") as response:
            assert (response.status, await response.json()) == (401, {"error": "Unauthorized"})
        async with session.get(f"{emulator.url}/v1/models", headers={"authorization": "Bearer sesame"}) as response:
            assert response.status == 200
        async with session.post(f"{emulator.url}/tokenize", json={"prompt": "x"}) as response:
            assert response.status == 200


async def test_several_models_and_their_names(session: aiohttp.ClientSession) -> None:
    async with Emulator(EmulatorOptions(engine=FAST, models=("big", "small"))) as emulator:
        async with session.get(f"{emulator.url}/v1/models") as response:
            cards = (await response.json())["data"]
        assert [card["id"] for card in cards] == ["big", "small"]
        assert (await chat(session, emulator, model="small"))["model"] == "small"
        assert (await chat(session, emulator, model=None))["model"] == "big"


async def test_pooling_routes(session: aiohttp.ClientSession) -> None:
    async with Emulator(EmulatorOptions(engine=FAST)) as emulator:

        async def post(path: str, **body: Any) -> Any:
            async with session.post(emulator.url + path, json=body) as response:
                assert response.status == 200, await response.text()
                return await response.json()

        vectors = await post("/v1/embeddings", input=["one", "two", "one"], dimensions=8)
        one, two, again = (item["embedding"] for item in vectors["data"])
        assert len(one) == 8
        assert one == again != two
        assert (await post("/pooling", input="one"))["data"][0]["object"] == "pooling"
        assert sum((await post("/classify", input="one"))["data"][0]["probs"]) == pytest.approx(1.0)
        scores = await post("/score", text_1="the sea", text_2=["the sea", "nothing alike"])
        assert [item["score"] for item in scores["data"]] == [1.0, 0.0]
        ranked = await post("/v1/rerank", query="the sea", documents=["nothing", "the sea"], top_n=1)
        assert [(item["index"], item["relevance_score"]) for item in ranked["results"]] == [(1, 1.0)]
        assert emulator.site.engine.generation_tokens == 0
        assert emulator.site.engine.prompt_tokens > 0


async def test_token_ids_in_and_out(session: aiohttp.ClientSession) -> None:
    async with Emulator(EmulatorOptions(engine=FAST)) as emulator:
        body = {"token_ids": [1, 2, 3], "sampling_params": {"max_tokens": 5}}
        async with session.post(f"{emulator.url}/inference/v1/generate", json=body) as response:
            answer = await response.json()
        assert len(answer["choices"][0]["token_ids"]) == 5
        assert answer["choices"][0]["finish_reason"] == "length"


async def test_a_transcript_is_as_long_as_the_file(session: aiohttp.ClientSession) -> None:
    async with Emulator(EmulatorOptions(engine=FAST)) as emulator:
        for model, status in (("emulated", 200), ("other", 404)):
            form = aiohttp.FormData()
            form.add_field("file", b"\x00\xff" * 5000, filename="a.wav", content_type="audio/wav")
            form.add_field("model", model)
            async with session.post(f"{emulator.url}/v1/audio/transcriptions", data=form) as response:
                assert response.status == status, await response.text()
                answer = await response.json()
            if status == 200:
                assert len(answer["text"].split()) == 11


async def test_the_small_routes(session: aiohttp.ClientSession) -> None:
    async with Emulator(EmulatorOptions(engine=FAST)) as emulator:
        for path in ("/health", "/ping"):
            async with session.get(emulator.url + path) as response:
                assert (response.status, await response.read()) == (200, b"")
        async with session.get(f"{emulator.url}/version") as response:
            assert "version" in await response.json()
        async with session.get(f"{emulator.url}/load") as response:
            assert await response.json() == {"server_load": 0}
        async with session.head(f"{emulator.url}/v1/models") as response:
            assert response.status == 200
            assert int(response.headers["content-length"]) > 0


async def test_the_head_is_sent_before_the_prefill_is_done(session: aiohttp.ClientSession) -> None:
    async with Emulator(EmulatorOptions(engine=NEVER)) as emulator:
        body = {"messages": HELLO, "stream": True}
        async with session.post(f"{emulator.url}/v1/chat/completions", json=body) as response:
            assert response.status == 200
            assert emulator.state()["phases"] == {"waiting": 0, "prefill": 1, "decoding": 0}
            async with session.get(f"{emulator.url}/load") as load:
                assert await load.json() == {"server_load": 1}


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("half_close", [True, False])
async def test_a_client_that_leaves_frees_the_engine(streaming: bool, half_close: bool) -> None:
    async with Emulator(EmulatorOptions(engine=ENDLESS)) as emulator:
        body = json.dumps({"messages": HELLO, "stream": streaming, "max_tokens": 100_000}).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", emulator.port)
        writer.write(_post("/v1/chat/completions", body, "x-request-id: mine"))
        await until(lambda: emulator.site.engine.generation_tokens > 3, "tokens")
        if half_close:
            writer.write_eof()
        else:
            writer.close()
        await until(lambda: emulator.aborted == 1, "the abort")
        assert emulator.site.engine.running == 0
        assert emulator.site.engine.kv_usage == 0.0
        assert emulator.in_flight == 0
        assert emulator.state()["aborted_ids"] == ["mine"]
        assert emulator.site.stats.finished["abort"] == 1
        writer.close()
        del reader


async def test_a_fin_is_noticed_although_much_is_still_to_be_sent() -> None:
    async with Emulator(EmulatorOptions(engine=EngineOptions(ttft_s=0.0, itl_s=0.0))) as emulator:
        body = json.dumps({"messages": HELLO, "stream": True, "max_tokens": 100_000, "n": 64}).encode()
        # Reads nothing, so the answer fills every buffer on the way.
        reader, writer = await asyncio.open_connection("127.0.0.1", emulator.port, limit=1024)
        writer.write(_post("/v1/chat/completions", body))
        await until(lambda: emulator.site.engine.generation_tokens > 60_000, "more than the sockets hold")
        writer.write_eof()
        await until(lambda: emulator.aborted == 1, "the abort")
        assert emulator.site.engine.running == 0
        writer.transport.abort()
        del reader


async def test_a_client_that_leaves_the_queue_is_forgotten() -> None:
    options = EmulatorOptions(engine=EngineOptions(max_num_seqs=1, ttft_s=3600))
    async with Emulator(options) as emulator:
        body = json.dumps({"messages": HELLO}).encode()
        clients = [await asyncio.open_connection("127.0.0.1", emulator.port) for _ in range(2)]
        for _, writer in clients:
            writer.write(_post("/v1/chat/completions", body))
            await writer.drain()
        await until(lambda: emulator.state()["phases"] == {"waiting": 1, "prefill": 1, "decoding": 0}, "both phases")
        clients[0][1].close()
        await until(lambda: emulator.state()["phases"] == {"waiting": 0, "prefill": 1, "decoding": 0}, "moving up")
        clients[1][1].close()
        await until(lambda: emulator.aborted == 2, "both aborts")
        assert emulator.site.engine.running == 0


async def test_the_metrics_page_follows(session: aiohttp.ClientSession) -> None:
    async with Emulator(EmulatorOptions(engine=FAST, models=("m",))) as emulator:
        await stream(session, emulator, max_tokens=5)
        async with session.get(f"{emulator.url}/metrics") as response:
            assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
            page = await response.text()
        labels = 'engine="0",model_name="m"'
        assert f"vllm:generation_tokens_total{{{labels}}} 5.0\n" in page
        assert f'vllm:request_success_total{{{labels},finished_reason="length"}} 1.0\n' in page
        assert f"vllm:inter_token_latency_seconds_count{{{labels}}} 4.0\n" in page
        assert f"vllm:time_to_first_token_seconds_count{{{labels}}} 1.0\n" in page
        assert f"vllm:e2e_request_latency_seconds_count{{{labels}}} 1.0\n" in page
        assert not emulator.site.generations


async def test_an_overfull_queue_is_503(session: aiohttp.ClientSession) -> None:
    engine = EngineOptions(max_num_seqs=1, ttft_s=3600)
    async with Emulator(EmulatorOptions(engine=engine, max_queued=1)) as emulator:
        waiting = [asyncio.ensure_future(chat(session, emulator)) for _ in range(2)]
        await until(lambda: emulator.site.engine.waiting == 1, "a full queue")
        async with session.post(f"{emulator.url}/v1/chat/completions", json={"messages": HELLO}) as response:
            assert response.status == 503
            assert "retry-after" not in response.headers
            assert "try again later or on a different instance" in await response.text()
        assert emulator.site.stats.rejected["max_num_queued_reqs"] == 1
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_asleep_it_looks_well_and_answers_nothing(session: aiohttp.ClientSession) -> None:
    async with Emulator(EmulatorOptions(engine=FAST)) as emulator:
        async with session.post(f"{emulator.url}/sleep?level=1") as response:
            assert response.status == 200
        async with session.get(f"{emulator.url}/health") as response:
            assert response.status == 200
        async with session.get(f"{emulator.url}/is_sleeping") as response:
            assert await response.json() == {"is_sleeping": True}
        body = {"messages": HELLO, "stream": True, "max_tokens": 2}
        async with session.post(f"{emulator.url}/v1/chat/completions", json=body) as stuck:
            assert stuck.status == 200
            assert emulator.site.engine.due is None
            async with session.post(f"{emulator.url}/wake_up") as response:
                assert response.status == 200
            assert events(await stuck.text())[-1] == "[DONE]"
        async with session.get(f"{emulator.url}/is_sleeping") as response:
            assert await response.json() == {"is_sleeping": False}


async def test_stored_and_background_responses(session: aiohttp.ClientSession) -> None:
    async with Emulator(EmulatorOptions(engine=ENDLESS)) as emulator:
        url = f"{emulator.url}/v1/responses"
        async with session.post(url, json={"input": "hello", "max_output_tokens": 3}) as response:
            made = await response.json()
        async with session.get(f"{url}/{made['id']}") as response:
            assert await response.json() == made
        async with session.get(f"{url}/resp_unknown") as response:
            assert response.status == 404
        async with session.post(f"{url}/{made['id']}/cancel") as response:
            assert response.status == 400
        body = {"input": "hello", "background": True, "max_output_tokens": 100_000}
        async with session.post(url, json=body) as response:
            running = await response.json()
        assert running["status"] == "queued"
        assert emulator.site.engine.running == 1
        async with session.post(f"{url}/{running['id']}/cancel") as response:
            assert (await response.json())["status"] == "cancelled"
        assert emulator.site.engine.running == 0


async def test_load_figures_ride_on_a_header(session: aiohttp.ClientSession) -> None:
    async with Emulator(EmulatorOptions(engine=FAST)) as emulator:
        headers = {"endpoint-load-metrics-format": "json"}
        body = {"messages": HELLO}
        async with session.post(f"{emulator.url}/v1/chat/completions", json=body, headers=headers) as response:
            figures = json.loads(response.headers["endpoint-load-metrics"].removeprefix("JSON "))
        assert set(figures["named_metrics"]) == {"kv_cache_usage_perc", "num_requests_waiting"}


def _post(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: x", "content-type: application/json", f"content-length: {len(body)}"]
    return ("\r\n".join([*lines, *headers]) + "\r\n\r\n").encode() + body
