"""One look at one backend: an HTTP request, turned into a `ProbeResult` with the reason in words."""

import asyncio
import errno
import ssl
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import aiohttp

from llmproxy.config.model import PoolConfig
from llmproxy.control.resolver import NameService, Resolver
from llmproxy.control.sleep_state import Reader, SleepCheck, SleepUnknownError
from llmproxy.core.backend import BackendSpec
from llmproxy.core.ports import ProbeResult

_READ_BYTES = 16 * 1024
_UNREACHED = (aiohttp.ClientError, OSError, TimeoutError, ValueError)


@dataclass(frozen=True, slots=True)
class Sight:
    """What a probe saw; `reason` is for the log."""

    result: ProbeResult
    reason: str


class ProbeClient:
    """The HTTP client of a prober: `async with` it, then `look` as often as needed.

    Every probe opens its own connection, because a kept one proves nothing about whether the server still accepts.
    Redirects are failures, bodies of health answers are not read, and certificates are always verified. The pool's
    `upstream_key` goes along: vLLM's /health needs none, but another health path or another server may.

    Who asks often and proves nothing by it keeps idle connections for `keep_s`.
    """

    def __init__(self, resolver: Resolver, *, keep_s: float = 0.0) -> None:
        self._resolver = resolver
        self._keep_s = keep_s
        self._session: aiohttp.ClientSession | None = None
        self._trust: dict[str, ssl.SSLContext | bool] = {}

    async def __aenter__(self) -> "ProbeClient":
        connector = aiohttp.TCPConnector(
            **({"keepalive_timeout": self._keep_s} if self._keep_s else {"force_close": True}),
            limit=0,
            use_dns_cache=False,
            resolver=NameService(self._resolver),
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=_READ_BYTES,
            headers={"User-Agent": "llmproxy (probe)", "Accept-Encoding": "identity"},
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def look(
        self, spec: BackendSpec, settings: PoolConfig, sleep: SleepCheck, *, gauge: bool | None = None
    ) -> Sight:
        """Probe the health path and, when that is well and the pool wants it, ask whether the engine sleeps. `gauge`:
        what its metrics said of that a moment ago, if anything, so that they need not be read again."""
        health = settings.health
        try:
            async with asyncio.timeout(health.timeout):
                status = await self.get(spec, settings.upstream_key, health.path, None)
        except TimeoutError:
            sight = Sight(ProbeResult.FAILED, f"no answer within {health.timeout:g} s")
        except _UNREACHED as error:
            sight = _unreached(error)
        else:
            sight = _answered(status)
        if sight.result is not ProbeResult.OK:
            sleep.forget()
        elif health.check_sleep and await self._sleeps(spec, settings, sleep, gauge):
            return Sight(ProbeResult.SLEEPING, "asleep or paused")
        return sight

    async def _sleeps(self, spec: BackendSpec, settings: PoolConfig, sleep: SleepCheck, gauge: bool | None) -> bool:
        async def fetch(path: str, reader: Reader) -> int:
            return await self.get(spec, settings.upstream_key, path, reader)

        try:
            async with asyncio.timeout(settings.health.timeout):
                return await sleep.ask(fetch, gauge)
        except (*_UNREACHED, SleepUnknownError):
            return sleep.asleep

    async def get(self, spec: BackendSpec, key: str, path: str, reader: Reader | None, *, body: Any = None) -> int:
        """The status of a GET, or with `body` (JSON) of a POST; what a 200 brings goes to the reader."""
        assert self._session is not None, "used outside `async with`"
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        if spec.server_name:
            headers["Host"] = spec.server_name if spec.port in (80, 443) else f"{spec.server_name}:{spec.port}"
        async with self._session.request(
            "GET" if body is None else "POST",
            spec.url + path,
            json=body,
            headers=headers,
            allow_redirects=False,
            ssl=await self._context(spec),
            server_hostname=spec.server_name or None,
            timeout=aiohttp.ClientTimeout(),
        ) as response:
            if reader is not None and response.status == 200:
                async for data in response.content.iter_chunked(_READ_BYTES):
                    if reader.feed(data):
                        break
            return response.status

    def forget_authorities(self) -> None:
        """Read CA files again at the next probe: they may have been replaced."""
        self._trust.clear()

    async def _context(self, spec: BackendSpec) -> ssl.SSLContext | bool:
        if not spec.tls or spec.ca_file is None:
            return True
        context = self._trust.get(spec.ca_file)
        if context is None:
            context = await asyncio.to_thread(tls_for, spec)
            self._trust[spec.ca_file] = context
        return context


def tls_for(spec: BackendSpec) -> ssl.SSLContext | bool:
    """What aiohttp takes as `ssl` for a request to this backend: verification by its `ca_file`, or by the system's
    authorities. Reads the file each time; OSError when it cannot."""
    return ssl.create_default_context(cafile=spec.ca_file) if spec.tls and spec.ca_file else True


def _answered(status: int) -> Sight:
    if status == 200:
        return Sight(ProbeResult.OK, "well")
    if status == 503:
        return Sight(ProbeResult.LOADING, "status 503")
    return Sight(ProbeResult.FAILED, f"status {status}")


def _unreached(error: Exception) -> Sight:
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, OSError) and cause.errno == errno.ECONNREFUSED:
        return Sight(ProbeResult.REFUSED, "connection refused")
    return Sight(ProbeResult.FAILED, str(error) or type(error).__name__)
