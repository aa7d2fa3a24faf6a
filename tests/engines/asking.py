"""Requests to real engines: bodies for each route, and requests under way that can be looked at."""

import asyncio
from collections.abc import Iterable
from typing import Any

from tests.engines.vllm_server import KEY, MODEL, VllmServer
from tests.harness.client import Answer, Client
from tests.harness.proxy import Proxy
from tests.harness.stage import Stage

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
MESSAGES = "/v1/messages"
RESPONSES = "/v1/responses"
GENERATING = (CHAT, COMPLETIONS, MESSAGES, RESPONSES)

KEY_LINE = ("Authorization", f"Bearer {KEY}")
"""The header of a request straight to an engine."""
HELLO: Any = [{"role": "user", "content": "Say hello."}]
_DELTAS = (b"content_block_delta", b"output_text.delta")
PATIENCE_S = 120.0
"""Longest wait for the next piece of an answer: real engines share two cores, and requests wait in their queues."""


def body_for(path: str, max_tokens: int = 8, *, stream: bool = False, **fields: Any) -> dict[str, Any]:
    """A request that makes exactly `max_tokens` tokens, always the same ones."""
    ask: dict[str, dict[str, Any]] = {
        CHAT: {"messages": HELLO, "max_tokens": max_tokens},
        COMPLETIONS: {"prompt": "Once upon a time", "max_tokens": max_tokens},
        MESSAGES: {"messages": HELLO, "max_tokens": max_tokens},
        RESPONSES: {"input": "Say hello.", "max_output_tokens": max_tokens},
    }
    return {"model": MODEL, "temperature": 0, "ignore_eos": True, "stream": stream, **ask[path], **fields}


def chat(max_tokens: int = 8, *, stream: bool = False, **fields: Any) -> dict[str, Any]:
    return body_for(CHAT, max_tokens, stream=stream, **fields)


async def proxy_over(stage: Stage, *servers: VllmServer | dict[str, str], **sections: Any) -> Proxy:
    """A proxy over these servers that looks at their health every second; it has their key, its clients have none."""
    backends = [server.backend if isinstance(server, VllmServer) else server for server in servers]
    pool = {"upstream_key": KEY, "health": {"interval": "1s"}} | sections.pop("pool", {})
    return await stage.proxy(*backends, pool=pool, **sections)


class PatientClient(Client):
    async def _within(self, reading: Any) -> Any:
        async with asyncio.timeout(PATIENCE_S):
            return await reading


class Asking:
    """One request under way, on a connection of its own. `answer` is there from the head on, and grows."""

    def __init__(
        self, port: int, body: dict[str, Any], path: str = CHAT, headers: Iterable[tuple[str, str]] = ()
    ) -> None:
        self.answer: Answer | None = None
        self.client: Client | None = None
        self._task = asyncio.ensure_future(self._read(port, body, path, headers))

    async def _read(self, port: int, body: dict[str, Any], path: str, headers: Iterable[tuple[str, str]]) -> None:
        client = self.client = await PatientClient.open(port)
        try:
            await client.send("POST", path, body, headers)
            answer = self.answer = await client.head()
            length = answer.header("content-length")
            if length is None:
                while await client.chunk(answer):
                    pass
            else:
                answer.body = await client.reader.readexactly(int(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            if self.answer is not None:
                self.answer.cut = True
        finally:
            client.leave()

    async def ended(self) -> Answer:
        """The answer, whole, or as much as came of it."""
        await self._task
        assert self.answer is not None, "cut before the answer's head"
        return self.answer

    async def leave(self, *, reset: bool = False) -> None:
        """Close the client's connection in the middle; what has come is still read."""
        if self.client is None:
            self._task.cancel()
        else:
            self.client.leave(reset=reset)
        await asyncio.gather(self._task, return_exceptions=True)

    @property
    def backend(self) -> str | None:
        """Who answers, once that is known."""
        return None if self.answer is None else self.answer.header("x-llmproxy-backend")

    @property
    def has_token(self) -> bool:
        """Whether the client has seen a word of the answer, in any dialect."""
        answer = self.answer
        return answer is not None and (answer.text != "" or any(piece in answer.body for piece in _DELTAS))


def error_in(answer: Answer) -> Any:
    """The error that ended an event-stream, or None."""
    return next((event["error"] for event in answer.events if isinstance(event, dict) and event.get("error")), None)


def is_finished(answer: Answer) -> bool:
    """Whether a stream says that all of it has come, because its tokens were used up."""
    last = answer.events[-1]
    if last == "[DONE]":
        return finish_reasons(answer) == ["length"]
    ends = [event.get("type") for event in answer.events[-2:]] == ["message_delta", "message_stop"]
    return ends and answer.events[-2]["delta"]["stop_reason"] == "max_tokens"


def finish_reasons(answer: Answer) -> list[str]:
    """Every finish_reason of a chat or completions stream."""
    choices = [choice for event in answer.events if isinstance(event, dict) for choice in event.get("choices", ())]
    return [choice["finish_reason"] for choice in choices if choice.get("finish_reason")]
