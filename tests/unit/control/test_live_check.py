"""`look_at_all` against real sockets: who is well, what they serve, and which addresses of a name are asked."""

import random
import socket
from collections import Counter

import pytest
from aiohttp import web

from llmproxy.config import parse
from llmproxy.control.live_check import look_at_all, unserved
from llmproxy.core.clock import ManualClock
from llmproxy.core.ports import ProbeResult


class LiveEngine:
    """An HTTP server that answers each path with a status and a text."""

    def __init__(self):
        self.answers = {"/health": (200, ""), "/v1/models": (200, '{"data": [{"id": "m"}, {"id": "n"}]}')}
        self.asked = Counter()

    async def handle(self, request):
        self.asked[request.path] += 1
        status, text = self.answers.get(request.path, (404, ""))
        return web.Response(status=status, text=text)

    async def start(self):
        self.runner = web.ServerRunner(web.Server(self.handle), shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.port = self.runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.port}"


@pytest.fixture
async def engines():
    found = [LiveEngine(), LiveEngine()]
    for engine in found:
        await engine.start()
    yield found
    for engine in found:
        await engine.runner.cleanup()


async def look(config, lookup=None):
    return await look_at_all(config, clock=ManualClock(), rng=random.Random(1), lookup=lookup)


def pool(*urls):
    listed = ", ".join(f"'{url}'" for url in urls)
    return parse(f"pools: {{a: {{backends: [{listed}]}}}}\n", env={})


async def test_everyone_is_asked_and_answers_in_the_order_of_the_file(engines):
    first, second = engines
    second.answers["/v1/models"] = (200, '{"data": [{"id": "o"}]}')
    seen = await look(pool(second.url, first.url))
    assert [(one.spec.url, one.result, one.models) for one in seen] == [
        (second.url, ProbeResult.OK, ("o",)),
        (first.url, ProbeResult.OK, ("m", "n")),
    ]
    assert all(one.is_well for one in seen)


async def test_who_loads_is_not_well_and_is_not_asked_for_models(engines):
    engines[0].answers["/health"] = (503, "")
    [one] = await look(pool(engines[0].url))
    assert (one.result, one.is_well, one.models) == (ProbeResult.LOADING, False, None)
    assert engines[0].asked["/v1/models"] == 0


async def test_who_sleeps_is_well_but_said_to_sleep(engines):
    engines[0].answers["/is_sleeping"] = (200, '{"is_sleeping": true}')
    [one] = await look(pool(engines[0].url))
    assert (one.result, one.is_well) == (ProbeResult.SLEEPING, True)


@pytest.mark.parametrize(
    ("answer", "remark"),
    [
        ((404, ""), "/v1/models: status 404"),
        ((200, "hello"), "/v1/models: no JSON"),
        ((200, "[" * 100_000), "/v1/models: no JSON"),
        ((200, "[]"), "/v1/models: no list of models"),
        ((200, '{"data": 3}'), "/v1/models: no list of models"),
        ((200, " " * (2 << 20) + '{"data": []}'), "/v1/models: no JSON"),
    ],
    ids=["missing", "text", "deep", "list", "no-cards", "endless"],
)
async def test_odd_answers_about_models_are_remarks(engines, answer, remark):
    engines[0].answers["/v1/models"] = answer
    [one] = await look(pool(engines[0].url))
    assert (one.is_well, one.models, one.remark) == (True, None, remark)


async def test_cards_that_are_none_are_left_out(engines):
    engines[0].answers["/v1/models"] = (200, '{"data": [{"id": "m"}, {"id": 3}, {}, "x", null]}')
    [one] = await look(pool(engines[0].url))
    assert one.models == ("m",)


async def test_each_address_of_a_resolved_name_is_asked(engines):
    port = engines[0].port

    async def lookup(host, number):
        assert (host, number) == ("engine.test", port)
        return tuple((socket.AF_INET, (address, port)) for address in ("127.0.0.1", "127.0.0.2"))

    config = parse(f"pools: {{a: {{backends: [{{url: 'http://engine.test:{port}', resolve: true}}]}}}}\n", env={})
    seen = await look(config, lookup)
    assert [(one.spec.host, one.result) for one in seen] == [
        ("127.0.0.1", ProbeResult.OK),
        ("127.0.0.2", ProbeResult.REFUSED),
    ]


async def test_a_name_without_addresses_is_not_well():
    async def lookup(host, port):
        raise OSError("no such name")

    config = parse("pools: {a: {backends: [{url: 'http://engine.test:1', resolve: true}]}}\n", env={})
    [one] = await look(config, lookup)
    assert (one.is_well, one.reason) == (False, "the name has no address")


async def test_models_that_nobody_serves_are_told(engines):
    first, second = engines
    second.answers["/v1/models"] = (200, '{"data": [{"id": "o"}]}')
    config = parse(
        f"pools: {{a: {{backends: ['{first.url}', '{second.url}']}}, b: {{backends: ['http://127.0.0.1:1']}}}}\n"
        "models: {m: {pool: a}, x: {pool: a, rewrite: o}, y: {pool: a}, z: {pool: a, rewrite: p}, q: {pool: b}}\n",
        env={},
    )
    # Pool b said nothing, so nothing is known of it.
    assert list(unserved(config, await look(config))) == [("y", "y"), ("z", "p")]
