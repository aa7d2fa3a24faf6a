"""The webhook actuator against the reference receiver, and against receivers that misbehave."""

import asyncio
import importlib.util
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from llmproxy.control.actuators import signing
from llmproxy.control.actuators.base import ActuatorError, Instance, TiersFailed
from llmproxy.control.actuators.webhook import StaleLeader, WebhookActuator, WebhookOptions

SECRET = "a shared secret"
FILE = Path(__file__).parents[4] / "config" / "actuator-receiver.py"


def reference() -> Any:
    spec = importlib.util.spec_from_file_location("actuator_receiver", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def receiver() -> Iterator[Any]:
    module = reference()
    cluster = module.Cluster()
    server = module.serve(module.Receiver(SECRET, cluster), 0)
    server.cluster = cluster
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


async def no_sleep(seconds: float) -> None:
    return None


class Speaker:
    """Actuators that are closed in the end."""

    def __init__(self) -> None:
        self._made: list[WebhookActuator] = []

    def to(self, url: str, secret: str = SECRET, *, pool: str = "llama", **options: Any) -> WebhookActuator:
        actuator = WebhookActuator(pool, WebhookOptions(url, secret), sleep=no_sleep, **options)
        self._made.append(actuator)
        return actuator

    async def close(self) -> None:
        for actuator in self._made:
            await actuator.stop()


@pytest.fixture
async def speaker() -> AsyncIterator[Speaker]:
    made = Speaker()
    yield made
    await made.close()


def url_of(server: Any) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}/"


async def test_the_reference_receiver(receiver: Any, speaker: Speaker) -> None:
    actuator = speaker.to(url_of(receiver))
    assert await actuator.replicas() == []
    await actuator.scale(3, fence=1)
    await actuator.scale(3, fence=1)
    assert [one.id for one in await actuator.replicas()] == ["llama-1", "llama-2", "llama-3"]
    await actuator.scale(2, leaving=["llama-1"], fence=1)
    assert await actuator.replicas() == [
        Instance("llama-2", "http://10.0.0.2:8000"),
        Instance("llama-3", "http://10.0.0.3:8000"),
    ]


async def test_tiers_of_capacity_are_told_and_heard(receiver: Any, speaker: Speaker) -> None:
    actuator = speaker.to(url_of(receiver))
    await actuator.scale(3, tiers={"small": 2, "big": 1}, fence=1)
    assert sorted(one.tier for one in await actuator.replicas()) == ["big", "small", "small"]
    [big] = [one.id for one in await actuator.replicas() if one.tier == "big"]
    await actuator.scale(2, leaving=[big], tiers={"small": 2, "big": 0}, fence=1)
    assert [one.tier for one in await actuator.replicas()] == ["small", "small"]


async def test_a_leader_of_yesterday_is_refused(receiver: Any, speaker: Speaker) -> None:
    actuator = speaker.to(url_of(receiver))
    await actuator.scale(2, fence=7)
    with pytest.raises(StaleLeader):
        await actuator.scale(9, fence=6)
    assert len(receiver.cluster.instances) == 2


async def test_a_wrong_secret_and_an_old_message_are_refused(receiver: Any, speaker: Speaker) -> None:
    for stranger in (
        speaker.to(url_of(receiver), "another secret"),
        speaker.to(url_of(receiver), wall=lambda: 1_000_000_000.0),
    ):
        with pytest.raises(ActuatorError, match="status 401"):
            await stranger.scale(9, fence=1)
    assert receiver.cluster.instances == []


def test_the_same_message_twice_counts_once() -> None:
    module = reference()
    cluster = module.Cluster()
    receiver = module.Receiver(SECRET, cluster)
    body = b'{"version": 1, "id": "x", "action": "scale", "pool": "p", "replicas": 1, "leaving": [], "fence": 1}'
    headers = signing.headers(SECRET, body, time.time())
    assert receiver.receive(headers, body)[0] == 200
    cluster.instances.clear()
    assert receiver.receive(headers, body)[0] == 200
    assert cluster.instances == []


def test_a_message_that_could_not_be_followed_counts_when_it_comes_again() -> None:
    module = reference()
    asked: list[str] = []

    class Fleet(module.Cluster):  # type: ignore[misc, name-defined]
        def scale(self, pool: str, tiers: Any, leaving: Any) -> None:
            asked.append(pool)
            if len(asked) == 1:
                raise RuntimeError("the cloud says no")

    receiver = module.Receiver(SECRET, Fleet())
    body = b'{"version": 1, "id": "x", "action": "scale", "pool": "p", "replicas": 1, "leaving": [], "fence": 1}'
    headers = signing.headers(SECRET, body, time.time())
    with pytest.raises(RuntimeError):
        receiver.receive(headers, body)
    assert receiver.receive(headers, body)[0] == 200
    assert asked == ["p", "p"]


class Stand:
    """A receiver that answers what a test says."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, str]] = []
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []

    async def handle(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.read())
        self.headers.append(dict(request.headers))
        status, text = self.answers.pop(0) if self.answers else (200, '{"replicas": []}')
        return web.Response(status=status, text=text, content_type="application/json")


@pytest.fixture
async def stand() -> AsyncIterator[tuple[Stand, str]]:
    made = Stand()
    app = web.Application()
    app.router.add_post("/", made.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield made, f"http://127.0.0.1:{runner.addresses[0][1]}/"
    await runner.cleanup()


async def test_it_is_tried_again_with_the_same_id_and_signed_each_time(
    stand: tuple[Stand, str], speaker: Speaker
) -> None:
    made, url = stand
    made.answers = [(503, ""), (500, "")]
    await speaker.to(url).scale(1)
    assert len(made.bodies) == 3
    ids = {body.split(b'"id": "')[1][:16] for body in made.bodies}
    assert len(ids) == 1
    for body, headers in zip(made.bodies, made.headers, strict=True):
        assert signing.is_genuine(SECRET, body, headers, time.time())
        assert not signing.is_genuine(SECRET, body + b" ", headers, time.time())
        assert not signing.is_genuine(SECRET, body, headers, time.time() + 400)


async def test_however_long_an_error_is_it_is_one(stand: tuple[Stand, str], speaker: Speaker) -> None:
    made, url = stand
    made.answers = [(503, "x" * 2 * 1024**2)]
    await speaker.to(url).scale(1)
    assert len(made.bodies) == 2


async def test_it_gives_up_in_the_end(stand: tuple[Stand, str], speaker: Speaker) -> None:
    made, url = stand
    made.answers = [(503, "")] * 9
    with pytest.raises(ActuatorError, match="status 503"):
        await speaker.to(url).scale(1)
    assert len(made.bodies) == 3


async def test_what_was_refused_is_not_tried_again(stand: tuple[Stand, str], speaker: Speaker) -> None:
    made, url = stand
    made.answers = [(400, "")]
    with pytest.raises(ActuatorError, match="status 400"):
        await speaker.to(url).scale(1)
    assert len(made.bodies) == 1


@pytest.mark.parametrize(
    "answer",
    [
        "no json",
        "[]",
        "{}",
        '{"replicas": [1]}',
        '{"replicas": [{"id": "a b"}]}',
        '{"replicas": [{"id": "a"}, {"id": "a"}]}',
        '{"replicas": [{"id": "a", "url": "ftp://x"}]}',
        '{"replicas": [{"id": "a", "url": "http://10.0.0.5:8000/?key=x"}]}',
        '{"replicas": [{"id": "a", "url": "http://10.0.0.5:0"}]}',
        '{"replicas": [{"id": "a", "age_s": "x"}]}',
        '{"replicas": [{"id": "a", "age_s": NaN}]}',
        '{"replicas": [{"id": "a", "age_s": Infinity}]}',
        '{"replicas": [], "more": "' + "x" * 1024**2 + '"}',
    ],
)
async def test_an_answer_that_is_none(stand: tuple[Stand, str], speaker: Speaker, answer: str) -> None:
    made, url = stand
    made.answers = [(200, answer)]
    with pytest.raises(ActuatorError):
        await speaker.to(url).replicas()


async def test_an_answer_may_come_in_pieces(speaker: Speaker) -> None:
    content = json.dumps({"replicas": [{"id": f"r{number}"} for number in range(100)]}).encode()

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for start in range(0, len(content), 500):
            await response.write(content[start : start + 500])
            # A turn of the loop, in which the other end reads what there is.
            await asyncio.sleep(0)
        return response

    app = web.Application()
    app.router.add_post("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        assert len(await speaker.to(f"http://127.0.0.1:{runner.addresses[0][1]}/").replicas()) == 100
    finally:
        await runner.cleanup()


async def test_pools_that_share_the_reference_receiver_have_their_own_replicas_and_leaders(
    receiver: Any, speaker: Speaker
) -> None:
    llama, qwen = speaker.to(url_of(receiver)), speaker.to(url_of(receiver), pool="qwen")
    await llama.scale(2, fence=7)
    await qwen.scale(1, fence=1)
    assert [one.id for one in await llama.replicas()] == ["llama-1", "llama-2"]
    assert [one.id for one in await qwen.replicas()] == ["qwen-3"]
    await qwen.scale(0, fence=1)
    assert len(await llama.replicas()) == 2


@pytest.mark.parametrize(("name", "value"), [(signing.TIMESTAMP, "\u00b2"), (signing.SIGNATURE, "v1=\u00e9")])
def test_headers_that_are_no_ascii_are_refused(name: str, value: str) -> None:
    module = reference()
    headers = signing.headers(SECRET, b"{}", time.time()) | {name: value}
    assert module.Receiver(SECRET, module.Cluster()).receive(headers, b"{}")[0] == 401


async def test_nobody_there(speaker: Speaker) -> None:
    with pytest.raises(ActuatorError):
        await speaker.to("http://127.0.0.1:1/").replicas()


async def test_what_the_receiver_cannot_get_is_told_by_tier(stand: tuple[Stand, str], speaker: Speaker) -> None:
    there, url = stand
    actuator = speaker.to(url)
    answer = '{"replicas": [], "unavailable": ["spot", "another pool\'s", {}]}'
    there.answers = [(200, answer), (200, answer), (200, '{"replicas": [], "unavailable": 5}'), (200, "[]")]
    with pytest.raises(TiersFailed) as failed:
        await actuator.scale(2, tiers={"spot": 1, "steady": 1})
    assert failed.value.tiers == ("spot",)
    await actuator.scale(2)
    for _ in range(2):
        await actuator.scale(2, tiers={"spot": 1, "steady": 1})


async def test_a_change_is_not_told_again_once_somebody_has_paused(stand: tuple[Stand, str], speaker: Speaker) -> None:
    made, url = stand
    made.answers = [(503, "")] * 4
    actuator = speaker.to(url, paused=lambda: bool(made.bodies))
    with pytest.raises(ActuatorError, match="status 503"):
        await actuator.scale(3, fence=1)
    assert len(made.bodies) == 1
    with pytest.raises(ActuatorError, match="status 503"):
        await actuator.replicas()
    assert len(made.bodies) == 4, "to ask changes nothing"
