"""The autoscaler over real engines: it starts and stops vLLM itself, and no request fails for it.

vLLM for the CPU has no sleep mode. With `--enable-sleep-mode` it ends at its start ("Sleep mode is not supported on
current platform."). Without it, in development mode, it takes /sleep and /wake_up all the same: it stops computing and
says that it sleeps, but frees nothing ("sleep mode is not supported on CPU, ignore it"). So what is tested here of
sleeping is the engine's side of the conversation, and that a pool gets on with engines that refuse it.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmproxy.control.actuators.engine_kinds import ProcessOptions
from llmproxy.control.actuators.process import ProcessActuator
from llmproxy.control.scaling.fleet import Stage as Life
from tests.engines.asking import Asking, chat, error_in, is_finished
from tests.engines.vllm_server import FLAGS, KEY, MODEL, OFFLINE, OPEN, SMALL, TINY, Engines, poll
from tests.harness.client import Answer, Client
from tests.harness.proxy import Proxy, settings
from tests.harness.stage import Stage
from tests.harness.waiting import until

pytestmark = pytest.mark.engines

START_S = 480.0
"""How long a real engine may take to start on cores that others use too: beside a busy one, on two cores, it has been
over four minutes."""
TOKENS = 40


class Ground:
    """A folder for the engines of one pool, and the command they are started with.

    No engine is bound to a core. One that is leaves the others no way around it: as it starts, a vLLM binds itself to
    each core in turn for a moment (its mathematics library counts them), and beside a busy engine on that core Linux
    6.18 has let it wait for seven minutes.
    """

    def __init__(self, folder: Path, engines: Engines, *flags: str, **more_env: str) -> None:
        self.folder = folder
        vllm = [str(engines.directory / "venv/bin/vllm"), "serve", str(engines.directory / "models" / TINY)]
        named = ["--host=127.0.0.1", "--port={port}", f"--served-model-name={MODEL}", f"--api-key={KEY}"]
        command = [*vllm, *named, *FLAGS, *flags]
        self.actuator = {
            "kind": "process",
            "command": " ".join(command),
            "directory": str(folder),
            "env": OFFLINE | SMALL | {"VLLM_CPU_OMP_THREADS_BIND": "nobind"} | more_env,
            "stop_timeout": "20s",
        }

    @property
    def pids(self) -> dict[str, int]:
        rows = json.loads((self.folder / "replicas.json").read_text())["replicas"]
        return {row["id"]: row["pid"] for row in rows}

    def log(self) -> str:
        return "".join(file.read_text(errors="replace") for file in sorted((self.folder / "logs").glob("*.log")))

    async def clear(self) -> None:
        last = ProcessActuator("main", ProcessOptions("none", self.folder, stop_timeout_s=10.0, on_exit_stop=True))
        await last.start()
        await last.stop()


@pytest.fixture(scope="module")
def folder(engines: Engines, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One for the first two tests: engines outlive the proxy that started them, so the second finds one (and starts
    one where there is none)."""
    engines.destroy()
    folder = tmp_path_factory.mktemp("scaled")
    yield folder
    asyncio.run(Ground(folder, engines).clear())


@pytest.fixture
async def other(engines: Engines, tmp_path: Path) -> AsyncIterator[Callable[..., Ground]]:
    """Grounds for engines with other flags, on which none is left in the end."""
    made: list[Ground] = []

    def make(*flags: str, **more_env: str) -> Ground:
        made.append(Ground(tmp_path / f"engines-{len(made)}", engines, *flags, **more_env))
        return made[-1]

    yield make
    for ground in made:
        await ground.clear()


async def serve(stage: Stage, tmp_path: Path, ground: Ground, **scaling: Any) -> Proxy:
    pool = {
        "upstream_key": KEY,
        "queue": {"wait": f"{START_S:g}s"},
        "health": {"interval": "1s", "timeout": "10s", "slow_start": "0s"},
        "scaling": {"interval": "0.5s", "drain": "120s", "max_concurrency": 8, "actuator": ground.actuator} | scaling,
    }
    return await stage.serve(settings({"main": pool}, tmp_path / "access.jsonl"), healthy=False)


def lives(proxy: Proxy) -> dict[str, int]:
    fleet = proxy.app.autoscaling.all.scalers["main"].parts.fleet
    return {stage.value: count for stage in Life if (count := fleet.count(stage))}


async def come_to(proxy: Proxy, wanted: dict[str, int], timeout_s: float = START_S) -> None:
    def is_so() -> bool:
        assert lives(proxy) == wanted, lives(proxy)
        return True

    await until(is_so, str(wanted), timeout_s)


class Talk:
    """`async with Talk(port, 8):` so many clients, each asking again when it has its answer, streamed or whole. Every
    answer is looked at; `flaws` is what was wrong with any."""

    def __init__(self, port: int, clients: int) -> None:
        self.backends: Counter[str | None] = Counter()
        self.flaws: list[str] = []
        self._port, self._clients = port, clients
        self._over = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Talk":
        self._tasks = [asyncio.create_task(self._ask(bool(number % 2))) for number in range(self._clients)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over = True
        await asyncio.gather(*self._tasks)

    async def _ask(self, stream: bool) -> None:
        while not self._over:
            answer = await Asking(self._port, chat(TOKENS, stream=stream)).ended()
            self.backends[answer.header("x-llmproxy-backend")] += 1
            if not whole(answer, TOKENS, stream):
                self.flaws.append(f"status {answer.status}, cut: {answer.cut}: {answer.body[-300:]!r}")


def whole(answer: Answer, tokens: int, stream: bool) -> bool:
    if answer.status != 200 or answer.cut:
        return False
    if stream:
        return error_in(answer) is None and is_finished(answer)
    return bool(answer.json["usage"]["completion_tokens"] == tokens)


def asks(url: str, method: str, path: str) -> Callable[[], Awaitable[Answer]]:
    async def ask() -> Answer:
        client = await Client.open(int(url.rpartition(":")[2]))
        try:
            return await client.ask(method, path, None, [("Authorization", f"Bearer {KEY}")])
        finally:
            client.leave()

    return ask


def sleeps(url: str) -> Callable[[], Awaitable[bool]]:
    async def does() -> bool:
        return bool((await asks(url, "GET", "/is_sleeping")()).json["is_sleeping"])

    return does


async def test_one_two_one_under_load_and_nothing_fails(
    folder: Path, engines: Engines, stage: Stage, tmp_path: Path
) -> None:
    ground = Ground(folder, engines, **OPEN)
    # Answers of one batch end together: for a moment there is nothing in flight.
    rules = {
        "up": "in_flight_per_replica >= 4",
        "down": "in_flight_per_replica < 2 for 5s",
        "up_period": "1s",
        "down_period": "1s",
    }
    proxy = await serve(
        stage,
        tmp_path,
        ground,
        min=1,
        max=2,
        policies=[{"rules": rules}],
        behavior={"down": {"window": "0s"}},
    )
    # There is no engine yet: it waits for the first.
    first = await Asking(proxy.port, chat(TOKENS, stream=True)).ended()
    assert whole(first, TOKENS, stream=True)
    await come_to(proxy, {"serving": 1})
    async with Talk(proxy.port, 8) as many:
        await come_to(proxy, {"serving": 2})
        await until(lambda: len([id for id, count in many.backends.items() if count > 8]) == 2, "work for both", 120.0)
        long = [Asking(proxy.port, chat(400, stream=True)) for _ in range(4)]
        await until(lambda: all(one.has_token for one in long), "long streams", 60.0)
    async with Talk(proxy.port, 1) as few:
        await until(lambda: lives(proxy) == {"serving": 1}, "one let go", START_S)
        so_far = few.backends.total()
        await until(lambda: few.backends.total() > so_far, "work for the one that is left", 60.0)
    answers = [await one.ended() for one in long]
    assert [whole(answer, 400, stream=True) for answer in answers] == [True] * 4
    assert len({answer.header("x-llmproxy-backend") for answer in answers}) == 2, "the one that left had some too"
    assert many.flaws + few.flaws == []
    assert proxy.metric("llmproxy_scaling_starts_total", result="ok") == 2
    assert proxy.metric("llmproxy_scaling_starts_total", result="failed") == 0
    assert len(ground.pids) == 1


async def test_at_zero_it_sleeps_and_the_first_request_wakes_it(
    folder: Path, engines: Engines, stage: Stage, tmp_path: Path
) -> None:
    ground = Ground(folder, engines, **OPEN)
    scaling = {"min": 0, "max": 1, "warm_pool": {"size": 1, "kind": "sleep"}, "behavior": {"down": {"window": "0s"}}}
    scaling |= {"policies": [{"rules": {"up": "queue_depth > 0", "down": "in_flight == 0 for 1s"}}]}
    proxy = await serve(stage, tmp_path, ground, **scaling)
    fleet = proxy.app.autoscaling.all.scalers["main"].parts.fleet
    await come_to(proxy, {"standby": 1})
    before = ground.pids
    for _ in range(2):
        await until(lambda: [one for one in fleet.at(Life.STANDBY) if one.asleep], "one that sleeps", START_S)
        [url] = [one.url for one in fleet.at(Life.STANDBY)]
        await poll(sleeps(url), "it does: it counts as asleep from when it is asked to be", 30.0)
        asking = Asking(proxy.port, chat(TOKENS, stream=True))
        assert whole(await asking.ended(), TOKENS, stream=True)
        assert (await asks(url, "GET", "/is_sleeping")()).json == {"is_sleeping": False}
        assert ground.pids == before, "woken, not started"
    # The next proxy finds it asleep, and does not take it for one that does not come up.
    await until(lambda: [one for one in fleet.at(Life.STANDBY) if one.asleep], "one that sleeps", START_S)
    await proxy.app.stop()
    next_proxy = await serve(stage, tmp_path, ground, **scaling)
    await come_to(next_proxy, {"standby": 1}, 30.0)
    assert whole(await Asking(next_proxy.port, chat(TOKENS)).ended(), TOKENS, stream=False)
    assert ground.pids == before


async def test_an_engine_that_will_not_sleep_is_stopped_and_the_pool_goes_on(
    other: Callable[..., Ground], stage: Stage, tmp_path: Path
) -> None:
    """Without development mode there is no /sleep."""
    ground = other()
    proxy = await serve(stage, tmp_path, ground, min=1, max=2, warm_pool={"size": 1, "kind": "sleep"})
    await until(lambda: lives(proxy).get("serving") == 1, "one that serves", START_S)
    async with Talk(proxy.port, 1) as talk:
        await until(lambda: proxy.metric("llmproxy_scaling_starts_total", result="ok") == 2, "the other", START_S)
        await come_to(proxy, {"serving": 1}, 60.0)
        answered = talk.backends.total()
        await until(lambda: talk.backends.total() > answered + 3, "work as before", 60.0)
    assert talk.flaws == []
    assert lives(proxy) == {"serving": 1}, "no other one is started to refuse in its turn"
    assert proxy.metric("llmproxy_scaling_starts_total", result="ok") == 2


async def test_the_cpu_engine_refuses_the_flag_for_sleep_mode(
    other: Callable[..., Ground], stage: Stage, tmp_path: Path
) -> None:
    """When this fails, vLLM has learnt to sleep on CPUs."""
    ground = other("--enable-sleep-mode", **OPEN)
    proxy = await serve(stage, tmp_path, ground, min=1, max=1, warm_pool={"size": 1, "kind": "sleep"})
    started = "llmproxy_scaling_starts_total"
    await until(lambda: proxy.metric(started, result="failed") + proxy.metric(started, result="died") > 0, "", START_S)
    assert "Sleep mode is not supported on current platform" in ground.log()

    async def waits() -> bool:
        return proxy.metric("llmproxy_scaling_backoff_seconds") > 0

    # The first is made good at once, the second waits.
    await poll(waits, "a pause before the next start", START_S)
    assert lives(proxy).get("serving") is None
