"""One engine as a client sees it: what it says of itself, and streams whose every token gets its time."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from llmproxy.control.signals.engine import WANTED, gauges_of
from llmproxy.control.signals.engine_table import CACHE_INFO
from llmproxy.control.signals.samples import Samples
from llmproxy.core.backend import Gauges

PATIENCE_S: Final = 300.0
"""Longest wait for the next piece of an answer."""
_LINE_MAX_BYTES: Final = 1 << 20
_SAID_MAX_CHARS: Final = 200


class EngineError(Exception):
    """The engine cannot be calibrated; the message says why, and what to do where that is known."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the engine says of itself. None: it does not."""

    model: str
    kv_tokens: int
    block_size: int | None = None
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    max_batched_tokens: int | None = None


@dataclass(slots=True)
class Heard:
    """One answer as it came. Moments are monotonic seconds."""

    sent_at: float
    ended_at: float = 0.0
    tokens_at: list[float] = field(default_factory=list)
    """When each token came."""
    pieces: int = 0
    """So many pieces brought them."""
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    backend: str = ""
    """Who a proxy says it was."""

    @property
    def ttft_s(self) -> float:
        return self.tokens_at[0] - self.sent_at


class EngineClient:
    """`url` is an engine's, or that of a proxy before several."""

    def __init__(self, http: aiohttp.ClientSession, url: str, key: str = "") -> None:
        self.url = url.rstrip("/")
        self._http = http
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    async def facts(self, model: str | None = None) -> Facts:
        """Raises `EngineError` when it cannot be reached, or says too little."""
        card = _card(self.url, await self._json("/v1/models"), model)
        samples = await self._metrics()
        kv_tokens = gauges_of(samples.whole(), 0.0).kv_tokens
        if kv_tokens is None:
            raise EngineError(
                f"{self.url}/metrics does not say how much fits into the KV cache (vllm:cache_config_info):"
                " is it the address of a vLLM or SGLang engine itself, and not that of a proxy?"
            )
        settings = await self._settings()
        return Facts(
            model=str(card["id"]),
            kv_tokens=kv_tokens,
            block_size=_block_size(samples),
            max_model_len=_positive(card.get("max_model_len")),
            max_num_seqs=_positive(settings.get("max_num_seqs")),
            max_batched_tokens=_positive(settings.get("max_num_batched_tokens")),
        )

    async def gauges(self) -> Gauges:
        """What its metrics page says now."""
        return gauges_of((await self._metrics()).whole(), time.monotonic())

    async def ask(self, model: str, prompt: str, max_tokens: int) -> Heard:
        """A completion of exactly `max_tokens` tokens, streamed. Raises `EngineError`."""
        body = {
            "model": model,
            "prompt": prompt,
            "max_tokens": max_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        }
        heard = Heard(time.monotonic())
        path = "/v1/completions"
        try:
            async with self._http.post(self.url + path, json=body, headers=self._headers) as answer:
                if answer.status != 200:
                    raise EngineError(f"{self.url}{path} answered {answer.status}: {_cut(await answer.text())}")
                if answer.content_type != "text/event-stream":
                    raise EngineError(
                        f"{self.url}{path} does not stream: asked for a stream, it answered with {answer.content_type}"
                    )
                heard.backend = answer.headers.get("X-LLMProxy-Backend", "")
                async for event in _events(answer.content):
                    self._take(heard, event)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise EngineError(f"{self.url}{path}: {_reason(error)}") from None
        heard.ended_at = time.monotonic()
        if not heard.tokens_at:
            raise EngineError(f"{self.url}{path} ended a stream without a token")
        return heard

    def _take(self, heard: Heard, event: Mapping[str, Any]) -> None:
        now = time.monotonic()
        if event.get("error"):
            raise EngineError(f"{self.url} broke a stream off: {_cut(json.dumps(event['error']))}")
        usage = event.get("usage") or {}
        known = usage.get("completion_tokens")
        heard.prompt_tokens = usage.get("prompt_tokens", heard.prompt_tokens)
        details = usage.get("prompt_tokens_details") or {}
        heard.cached_tokens = details.get("cached_tokens", heard.cached_tokens)
        if event.get("choices"):
            new = known - len(heard.tokens_at) if isinstance(known, int) else 1
            heard.tokens_at += [now] * new
            heard.pieces += new > 0

    async def _json(self, path: str) -> Any:
        async with self._get(path) as answer:
            if answer.status in (401, 403):
                raise EngineError(f"{self.url}{path} answered {answer.status}: it wants a key (--key)")
            if answer.status != 200:
                raise EngineError(f"{self.url}{path} answered {answer.status}: {_cut(await answer.text())}")
            try:
                return json.loads(await answer.read())
            except ValueError:
                raise EngineError(f"{self.url}{path} answered with no JSON") from None

    async def _metrics(self) -> Samples:
        samples = Samples(WANTED)
        async with self._get("/metrics") as answer:
            if answer.status != 200:
                raise EngineError(
                    f"{self.url}/metrics answered {answer.status}: its KV cache cannot be known without metrics"
                )
            samples.feed(await answer.read())
        return samples

    async def _settings(self) -> Mapping[str, Any]:
        """What vLLM tells in its developer mode; empty where it does not."""
        async with self._get("/server_info?config_format=json") as answer:
            if answer.status != 200:
                return {}
            try:
                settings = json.loads(await answer.read())["vllm_config"]["scheduler_config"]
            except (ValueError, KeyError, TypeError):
                return {}
        return dict(settings) if isinstance(settings, dict) else {}

    def _get(self, path: str) -> "_Getting":
        return _Getting(self._http, self.url, path, self._headers)


class _Getting:
    """A GET whose failures are `EngineError`s."""

    def __init__(self, http: aiohttp.ClientSession, url: str, path: str, headers: Mapping[str, str]) -> None:
        self._url = url + path
        self._request = http.get(self._url, headers=headers)

    async def __aenter__(self) -> aiohttp.ClientResponse:
        try:
            answer = await self._request.__aenter__()
            await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise EngineError(f"{self._url}: {_reason(error)}") from None
        return answer

    async def __aexit__(self, *error: Any) -> None:
        await self._request.__aexit__(*error)


def session() -> aiohttp.ClientSession:
    """For as many streams at once as are wanted, none of which is given up early."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=PATIENCE_S),
        read_bufsize=_LINE_MAX_BYTES,
    )


async def _events(content: aiohttp.StreamReader) -> AsyncIterator[Mapping[str, Any]]:
    async for line in content:
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            return
        try:
            event = json.loads(data)
        except ValueError:
            continue
        if isinstance(event, dict):
            yield event


def _card(url: str, models: Any, wanted: str | None) -> Mapping[str, Any]:
    cards = models.get("data") if isinstance(models, dict) else None
    cards = [card for card in cards if isinstance(card, dict) and "id" in card] if isinstance(cards, list) else []
    if not cards:
        raise EngineError(f"{url}/v1/models names no model")
    for card in cards:
        if wanted is None or card["id"] == wanted:
            return dict(card)
    raise EngineError(f"{url} serves no model {wanted!r} (it has: {', '.join(str(card['id']) for card in cards)})")


def _block_size(samples: Samples) -> int | None:
    for sample in samples.whole():
        if sample.name in CACHE_INFO:
            text = sample.labels.get(CACHE_INFO[sample.name][2], "")
            if text.isdecimal() and int(text):
                return int(text)
    return None


def _positive(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


def _reason(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno
        return f"cannot be reached: {os.strerror(number) if number and number > 0 else error.os_error}"
    if isinstance(error, (TimeoutError, asyncio.TimeoutError)):
        return f"no answer for {PATIENCE_S:.0f} s"
    return f"{type(error).__name__}: {error}"


def _cut(text: str) -> str:
    return text if len(text) <= _SAID_MAX_CHARS else text[:_SAID_MAX_CHARS] + "..."
