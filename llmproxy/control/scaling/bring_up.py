"""From a process that runs to a replica that serves: /health, a first real token, the prompts it will be asked often.

An engine's /health may be well before it can compute (its first request compiles kernels), so nothing counts before
a token came. A server that makes no tokens (embeddings) refuses the question, and that is an answer too.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp

from llmproxy.config.model import PoolConfig
from llmproxy.control.model_list import NoModelList, models_of
from llmproxy.control.probe import ProbeClient
from llmproxy.control.sleep_state import Flag
from llmproxy.core.backend import BackendSpec

ASK_EVERY_S: Final = 0.25
HEALTH_TIMEOUT_S: Final = 2.0
TOKEN_TIMEOUT_S: Final = 120.0
"""The first token may have to wait for kernels to be compiled."""
WARM_TIMEOUT_S: Final = 60.0
WARM_MAX: Final = 200
_UNREACHED: Final = (aiohttp.ClientError, OSError, TimeoutError, ValueError)

_log = logging.getLogger("llmproxy.control.scaling")


class BringUp:
    """`client` is entered by whoever made it."""

    def __init__(self, client: ProbeClient, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._client = client
        self._sleep = sleep

    async def until_it_answers(self, spec: BackendSpec, settings: PoolConfig) -> None:
        """Returns when it has said a token. Waits for ever: whoever waits bounds it."""
        while not await self._is_well(spec, settings) or not await self._says_a_token(spec, settings):
            await self._sleep(ASK_EVERY_S)

    async def warm(
        self, spec: BackendSpec, settings: PoolConfig, prompts: Sequence[dict[str, Any]], within_s: float
    ) -> None:
        """Have it compute `prompts` (bodies of requests), one token each, so that their prefixes are in its cache.
        One that fails costs only itself, and what is not done within `within_s` is left."""
        try:
            async with asyncio.timeout(within_s):
                for prompt in prompts:
                    await self._compute(spec, settings, prompt)
        except TimeoutError:
            _log.warning("warming %s: not done within %.0f s; it serves all the same", spec.id, within_s)

    async def _compute(self, spec: BackendSpec, settings: PoolConfig, prompt: dict[str, Any]) -> None:
        path = "/v1/chat/completions" if "messages" in prompt else "/v1/completions"
        body = {**prompt, "max_tokens": 1, "stream": False}
        for other in ("max_completion_tokens", "stream_options"):
            body.pop(other, None)
        try:
            async with asyncio.timeout(WARM_TIMEOUT_S):
                await self._client.get(spec, settings.upstream_key, path, _Whole(), body=body)
        except _UNREACHED as error:
            _log.info("warming %s: %s", spec.id, error or type(error).__name__)
        except Exception as error:
            # Warming is a kindness. What else went wrong may be told with the prompt in it.
            _log.warning("warming %s: %s", spec.id, type(error).__name__)

    async def put_to_sleep(self, spec: BackendSpec, settings: PoolConfig) -> int | None:
        """vLLM's sleep mode, level 1: weights go to main memory. The status of its answer, None without one."""
        return await self._post(spec, settings, "/sleep?level=1")

    async def wake(self, spec: BackendSpec, settings: PoolConfig) -> int | None:
        return await self._post(spec, settings, "/wake_up")

    async def is_asleep(self, spec: BackendSpec, settings: PoolConfig) -> bool:
        """Whether it says that it sleeps. One that does not know the question is awake."""
        answer = Flag("is_sleeping")
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                await self._client.get(spec, settings.upstream_key, "/is_sleeping", answer)
        except _UNREACHED:
            return False
        return bool(answer.value)

    async def _post(self, spec: BackendSpec, settings: PoolConfig, path: str) -> int | None:
        try:
            async with asyncio.timeout(TOKEN_TIMEOUT_S):
                return await self._client.get(spec, settings.upstream_key, path, None, body={})
        except _UNREACHED:
            return None

    async def _is_well(self, spec: BackendSpec, settings: PoolConfig) -> bool:
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                return await self._client.get(spec, settings.upstream_key, settings.health.path, None) == 200
        except _UNREACHED:
            return False

    async def _says_a_token(self, spec: BackendSpec, settings: PoolConfig) -> bool:
        key = settings.upstream_key
        body: dict[str, object] = {"prompt": "1", "max_tokens": 1}
        try:
            try:
                names = await models_of(self._client, spec, key, HEALTH_TIMEOUT_S)
            except NoModelList:
                names = ()
            if names:
                body["model"] = names[0]
            async with asyncio.timeout(TOKEN_TIMEOUT_S):
                status = await self._client.get(spec, key, "/v1/completions", _Whole(), body=body)
        except _UNREACHED:
            return False
        return status == 200 or (400 <= status < 500 and status not in (408, 429))


class _Whole:
    """Reads an answer to its end, which is when it is one."""

    def feed(self, data: bytes) -> bool:
        return False


def read_prompts(file: Path) -> list[dict[str, Any]]:
    """The bodies of requests in a file, one JSON object a line. Raises OSError and ValueError."""
    found = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        if not line.strip():
            continue
        try:
            body = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file}, line {number}: is no JSON: {error}") from None
        if not isinstance(body, dict) or not ("messages" in body or "prompt" in body):
            raise ValueError(f"{file}, line {number}: must be a JSON object with `messages` or `prompt`")
        found.append(body)
    return found[:WARM_MAX]
