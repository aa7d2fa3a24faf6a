"""Real vLLM servers on the CPU, started, asked and ended in every way an engine can end."""

import asyncio
import json
import os
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.harness.client import Answer, Client

MODEL = "smollm2"
"""The name under which every server serves its model."""
TINY = "tiny-llama-random"
"""Random weights: nonsense, at ten times the speed of the real model."""
REAL = "SmolLM2-135M-Instruct"
START_S = 300.0
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
SMALL = {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"}
# Dev mode has the routes that put an engine to sleep; the store keeps answers of /v1/responses for GET.
OPEN = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_ENABLE_RESPONSES_API_STORE": "1"}
KEY = "the-engines-key"
FLAGS = (
    "--dtype=bfloat16",
    "--max-num-seqs=16",
    "--block-size=32",
    "--enforce-eager",
    "--enable-server-load-tracking",
    "--enable-request-id-headers",
    "--enable-prompt-tokens-details",
    "--enable-scale-out",
)


async def poll(condition: Callable[[], Awaitable[bool]], what: str, timeout_s: float = 60.0) -> None:
    """Ask until it is so. Ten times a second, because each question costs the engine's own two cores something."""
    loop = asyncio.get_running_loop()
    # Not asyncio.timeout: Python 3.11's wait_for, in which most of this time is spent, can swallow its cancellation.
    deadline = loop.time() + timeout_s
    while not await condition():
        assert loop.time() < deadline, f"never came within {timeout_s:g} s: {what}"
        await asyncio.sleep(0.1)


class VllmServer:
    """One server, always on the same port (0: any), however often it is started. `flags` come after those all have."""

    def __init__(
        self, id: str, *, directory: Path, model: str, core: int, log: Path, flags: tuple[str, ...] = (), port: int = 0
    ) -> None:
        self.id = id
        self.directory = directory
        self.port = port or _free_port()
        config = json.loads((directory / "models" / model / "config.json").read_text())
        self.context_tokens: int = config["max_position_embeddings"]
        self._log = log
        self.command = [
            str(directory / "venv/bin/vllm"),
            "serve",
            str(directory / "models" / model),
            "--host=127.0.0.1",
            f"--port={self.port}",
            f"--served-model-name={MODEL}",
            f"--api-key={KEY}",
            *FLAGS,
            *flags,
        ]
        self._environment = os.environ | OFFLINE | SMALL | OPEN | {"VLLM_CPU_OMP_THREADS_BIND": str(core)}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def backend(self) -> dict[str, str]:
        """The entry in a pool's `backends`."""
        return {"url": self.url, "id": self.id}

    # -- life and death --------------------------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        """Whether its API server lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, in a process group of its own. Loading takes half a minute or more."""
        self.destroy()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )

    async def up(self) -> None:
        """Wait until it serves. Fails with the end of its log when it died instead."""

        async def serves() -> bool:
            if not self.is_running:
                raise RuntimeError(f"vLLM server {self.id} ended while it loaded:\n{self.last_words()}")
            return await self.health() == 200

        await poll(serves, f"a loaded vLLM server {self.id}", START_S)

    @property
    def pid(self) -> int:
        """The API server's process id."""
        assert self._process is not None
        return self._process.pid

    def terminate(self) -> None:
        """SIGTERM to the API server, as an orchestrator sends it."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    def kill_api_server(self) -> None:
        """SIGKILL to the process that speaks HTTP."""
        assert self._process is not None
        self._process.kill()

    def kill_engine_core(self) -> None:
        """SIGKILL to the process that generates, as the kernel does when memory runs out."""
        for pid in self._group("EngineCore"):
            os.kill(pid, signal.SIGKILL)

    async def gone(self) -> None:
        """Wait until its API server has ended by itself, then make sure that nothing is left of it."""

        async def ended() -> bool:
            return not self.is_running

        await poll(ended, f"the end of vLLM server {self.id}")
        self.destroy()

    def destroy(self) -> None:
        """End all of its processes, at once."""
        process, self._process = self._process, None
        if process is None:
            return
        for pid in self._members(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.wait()

    def last_words(self) -> str:
        return self._log.read_bytes()[-3000:].decode(errors="replace")

    # -- questions -------------------------------------------------------------------------------------------------

    async def ask(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """One request, straight to it. ConnectionError when it does not listen."""
        client = await Client.open(self.port)
        try:
            return await client.ask(method, path, body, [("Authorization", f"Bearer {KEY}"), *headers.items()])
        finally:
            client.leave()

    async def health(self) -> int | None:
        """The status of its /health; None when it refuses the connection."""
        try:
            return (await self.ask("GET", "/health")).status
        except (ConnectionError, asyncio.IncompleteReadError):
            return None

    async def metrics(self) -> dict[str, list[tuple[dict[str, str], float]]]:
        """Its metrics page: sample name -> labels and value of each sample."""
        page = await self.ask("GET", "/metrics")
        found: dict[str, list[tuple[dict[str, str], float]]] = {}
        for family in text_string_to_metric_families(page.body.decode()):
            for sample in family.samples:
                found.setdefault(sample.name, []).append((sample.labels, sample.value))
        return found

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of `vllm:<name>` that have these labels."""
        samples = (await self.metrics()).get(f"vllm:{name}", [])
        return sum(value for of, value in samples if labels.items() <= of.items())

    async def running(self) -> float:
        """Requests in its batch."""
        return await self.metric("num_requests_running")

    async def idle(self) -> None:
        """Wait until it works on nothing."""

        async def nothing() -> bool:
            return await self.running() + await self.metric("num_requests_waiting") == 0

        await poll(nothing, f"vLLM server {self.id} without work")

    async def has_running(self, requests: int) -> None:
        """Wait until so many requests are in its batch."""

        async def has() -> bool:
            return await self.running() == requests

        await poll(has, f"{requests} requests in the batch of vLLM server {self.id}")

    # -- inside ----------------------------------------------------------------------------------------------------

    def _group(self, title: str) -> list[int]:
        assert self._process is not None
        members = self._members(self._process.pid)
        return [pid for pid in members if title in _read(f"/proc/{pid}/cmdline")]

    def _members(self, leader: int) -> list[int]:
        """The processes of the group `leader`. Reading them beats killpg: the leader may be gone, its id another's."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                fields = _read(f"/proc/{entry.name}/stat").rpartition(")")[2].split()
                # state, parent, group, session
                if len(fields) > 3 and fields[0] != "Z" and int(fields[3]) == leader:
                    found.append(int(entry.name))
        return found


class Engines:
    """Two servers, alike but for how they shut down, when they are full, and that b sends a comment a second to streams
    that wait. Started when first needed, restarted when a test has ended one."""

    def __init__(self, directory: Path, model: str, logs: Path) -> None:
        self.directory = directory
        self.logs = logs
        logs.mkdir(parents=True, exist_ok=True)
        cores = sorted(os.sched_getaffinity(0))

        def server(id: str, core: int, *flags: str) -> VllmServer:
            log = logs / f"vllm-{id}.log"
            log.unlink(missing_ok=True)
            return VllmServer(id, directory=directory, model=model, core=cores[core], log=log, flags=flags)

        self.a = server("a", 0, "--max-num-queued-reqs=64")
        self.b = server("b", -1, "--shutdown-timeout=60", "--sse-keep-alive-interval=1")
        self.both = (self.a, self.b)
        self.endless = self.a.context_tokens - 500
        """`max_tokens` of a request that no test waits out."""

    async def up(self) -> None:
        """Both serve, and are idle."""
        for server in self.both:
            if not server.is_running:
                server.start()
        for server in self.both:
            await server.up()
        for server in self.both:
            await server.idle()

    def destroy(self) -> None:
        for server in self.both:
            server.destroy()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _read(path: str) -> str:
    """A file under /proc; empty when its process has just ended."""
    try:
        return Path(path).read_bytes().decode(errors="replace")
    except OSError:
        return ""
