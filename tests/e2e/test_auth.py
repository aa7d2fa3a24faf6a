"""Keys of the configuration, over real sockets: who is let in, what reaches the backends, what is told and written."""

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
import yaml

from llmproxy.config.loader import load
from llmproxy.control.file_watch import FileWatch
from llmproxy.control.reload import Trigger
from tests.harness.client import Answer, request_bytes
from tests.harness.proxy import Proxy, config_of, settings
from tests.harness.scripted import Turn
from tests.harness.stage import CHAT, MESSAGES, MODEL, Stage, chat
from tests.harness.waiting import until

SECRET = "sk-test-0123456789abcdef"
OTHER = "sk-test-other-key"
KEYS: list[dict[str, Any]] = [
    {"name": "acme-1", "tenant": "acme", "tier": "paid", "value": SECRET},
    {"name": "small", "tier": "free", "value": OTHER, "models": ["llama-*"]},
]
BEARER = [("Authorization", f"Bearer {SECRET}")]
RESTRICTED = [("Authorization", f"Bearer {OTHER}")]


@pytest.fixture
async def proxy(stage: Stage) -> Proxy:
    models = {MODEL: {"pool": "main"}, "llama-3": {"pool": "main", "rewrite": MODEL}}
    return await stage.proxy(await stage.backend(), keys=KEYS, models=models)


def error(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json["error"]["code"]


# -- who is let in -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Authorization", "authorization", "X-API-Key", "x-api-key", "api-key"])
async def test_a_key_is_taken_where_clients_put_it(stage: Stage, proxy: Proxy, name: str) -> None:
    value = f"Bearer {SECRET}" if name.lower() == "authorization" else SECRET
    answer = await stage.ask(proxy, chat(), headers=[(name, value)])
    assert answer.status == 200
    assert len(answer.text.split()) == 5


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Authorization", "Bearer wrong")],
        [("Authorization", f"Bearer {SECRET}x")],
        [("Authorization", f"Bearer {SECRET[:-1]}")],
        [("Authorization", f"Basic {SECRET}")],
        [("Authorization", "Bearer")],
        [("Authorization", f"Bearer {hashlib.sha256(SECRET.encode()).hexdigest()}")],
        [("x-api-key", "wrong"), ("api-key", SECRET)],
        [("Cookie", f"api-key={SECRET}")],
    ],
)
async def test_without_a_good_key_it_is_401_in_openais_shape(stage: Stage, proxy: Proxy, headers: Any) -> None:
    answer = await stage.ask(proxy, chat(), headers=headers)
    assert error(answer) == (401, "invalid_api_key")
    body = answer.json["error"]
    assert body.keys() == {"message", "type", "param", "code"}
    assert body["type"] == "invalid_request_error"
    assert answer.header("www-authenticate") == "Bearer"
    assert SECRET not in answer.body.decode()


async def test_anthropics_shape_where_anthropic_is_spoken(stage: Stage, proxy: Proxy) -> None:
    answer = await stage.ask(proxy, chat(), "/v1/messages", headers=[("x-api-key", "wrong")])
    assert answer.status == 401
    assert answer.json["type"] == "error"
    assert answer.json["error"]["type"] == "authentication_error"
    answer = await stage.ask(proxy, chat(), "/v1/messages", headers=[("x-api-key", OTHER)])
    assert (answer.status, answer.json["error"]["type"]) == (403, "permission_error")


async def test_the_answer_comes_before_the_body(stage: Stage, proxy: Proxy) -> None:
    """32 MiB are announced and never sent: the refusal does not wait for them, and nothing of them is held."""
    client = await stage.client(proxy)
    head = request_bytes("POST", CHAT, None, [("Content-Length", str(32 << 20)), ("Content-Type", "application/json")])
    await client.send_raw(head)
    answer = await client.answer()
    assert error(answer) == (401, "invalid_api_key")
    assert await client.at_end()
    assert proxy.handler.buffered == 0


async def test_who_asks_first_before_sending_is_told_no(stage: Stage, proxy: Proxy) -> None:
    client = await stage.client(proxy)
    await client.send_raw(request_bytes("POST", CHAT, None, [("Content-Length", "9"), ("Expect", "100-continue")]))
    answer = await client.answer()
    assert (answer.status, answer.informational) == (401, [])


async def test_each_request_of_a_connection_is_looked_at(stage: Stage, proxy: Proxy) -> None:
    client = await stage.client(proxy)
    assert (await client.ask("POST", CHAT, chat(stream=False), BEARER)).status == 200
    assert (await client.ask("POST", CHAT, chat(stream=False))).status == 401


async def test_what_needs_no_key(stage: Stage, proxy: Proxy) -> None:
    assert (await stage.ask(proxy, path="/health")).status == 200
    assert (await stage.ask(proxy, path="/ping")).status == 200
    assert (await stage.ask(proxy, path="/v1/models")).status == 401
    assert (await stage.ask(proxy, path="/v1/models", headers=BEARER)).status == 200
    for path in ("/nothing/there", "/metrics"):
        assert (await stage.ask(proxy, path=path)).status in (403, 404)


async def test_browsers_may_ask_whether_they_may_and_can_read_the_refusal(stage: Stage) -> None:
    origin = "https://chat.example.com"
    proxy = await stage.proxy(await stage.backend(), keys=KEYS, server={"cors": {"origins": [origin]}})
    asks = [("Origin", origin), ("Access-Control-Request-Method", "POST")]
    assert (await stage.ask(proxy, path=CHAT, method="OPTIONS", headers=asks)).status == 204
    answer = await stage.ask(proxy, chat(), headers=[("Origin", origin)])
    assert (answer.status, answer.header("access-control-allow-origin")) == (401, origin)


@pytest.mark.parametrize("how", ["sha256", "file"])
async def test_a_key_may_be_given_as_its_hash_or_in_a_file(stage: Stage, tmp_path: Path, how: str) -> None:
    (tmp_path / "key").write_text(SECRET + "\n")
    given = {"sha256": hashlib.sha256(SECRET.encode()).hexdigest().upper(), "file": str(tmp_path / "key")}
    proxy = await stage.proxy(await stage.backend(), keys=[{"name": "k", "tier": "free", how: given[how]}])
    assert (await stage.ask(proxy, chat(), headers=BEARER)).status == 200
    assert (await stage.ask(proxy, chat(), headers=RESTRICTED)).status == 401


async def test_a_key_that_has_ended(stage: Stage) -> None:
    key = KEYS[0] | {"expires": "2020-01-01"}
    proxy = await stage.proxy(await stage.backend(), keys=[key])
    answer = await stage.ask(proxy, chat(), headers=BEARER)
    assert error(answer) == (401, "invalid_api_key")
    assert "expired" in answer.json["error"]["message"]


# -- which models ------------------------------------------------------------------------------------------------------


async def test_a_key_for_some_models(stage: Stage, proxy: Proxy) -> None:
    assert (await stage.ask(proxy, chat() | {"model": "llama-3"}, headers=RESTRICTED)).status == 200
    answer = await stage.ask(proxy, chat(), headers=RESTRICTED)
    assert error(answer) == (403, "model_not_allowed")
    assert answer.json["error"]["param"] == "model"
    for body in ({"messages": MESSAGES}, chat() | {"model": "llama-9"}):
        answer = await stage.ask(proxy, body, headers=RESTRICTED)
        assert answer.status == (404 if "model" in body else 403)
    cards = (await stage.ask(proxy, path="/v1/models", headers=RESTRICTED)).json["data"]
    assert [card["id"] for card in cards] == ["llama-3"]
    assert (await stage.ask(proxy, path=f"/v1/models/{MODEL}", headers=RESTRICTED)).status == 404


async def test_a_body_that_is_not_read_may_not_hide_a_model(stage: Stage) -> None:
    """Streamed through, it could name any model; the header that routes it could name another."""
    proxy = await stage.proxy(await stage.backend(), keys=KEYS, server={"limits": {"multipart": "1KiB"}})
    body = (
        b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nsecret\r\n--x\r\n'
        b'Content-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + bytes(5000) + b"\r\n--x--\r\n"
    )
    headers = [("Content-Type", "multipart/form-data; boundary=x"), ("X-LLMProxy-Model", "llama-3"), *RESTRICTED]
    answer = await stage.ask(proxy, body, "/v1/audio/transcriptions", headers=headers)
    assert error(answer) == (403, "model_not_allowed")


# -- what the backends get ---------------------------------------------------------------------------------------------


async def forwarded(stage: Stage, *headers: tuple[str, str], **options: Any) -> Turn:
    async def script(turn: Turn) -> None:
        await turn.answer(b"{}")

    backend = await stage.scripted(script)
    proxy = await stage.proxy(backend, **options)
    assert (await stage.ask(proxy, chat(stream=False), headers=headers)).status == 200
    return backend.turns[-1]


ALL = (("Authorization", f"Bearer {SECRET}"), ("X-Api-Key", SECRET), ("API-KEY", SECRET), ("X-Other", "stays"))


async def test_a_key_that_was_checked_ends_here(stage: Stage) -> None:
    turn = await forwarded(stage, *ALL, keys=KEYS)
    assert turn.header("authorization") is None
    assert turn.header("x-other") == "stays"
    assert SECRET.encode() not in turn.head


async def test_the_pools_own_key_goes_instead(stage: Stage) -> None:
    turn = await forwarded(stage, *ALL, keys=KEYS, pool={"upstream_key": "ours"})
    assert turn.header("authorization") == "Bearer ours"
    assert SECRET.encode() not in turn.head


async def test_a_pool_may_be_given_the_clients_key(stage: Stage) -> None:
    turn = await forwarded(stage, *ALL, keys=KEYS, pool={"forward_authorization": True})
    assert [turn.header(name) for name in ("authorization", "x-api-key", "api-key")] == [
        f"Bearer {SECRET}",
        SECRET,
        SECRET,
    ]


async def test_without_keys_nothing_is_taken_away(stage: Stage) -> None:
    turn = await forwarded(stage, *ALL)
    assert [turn.header(name) for name in ("authorization", "x-api-key")] == [f"Bearer {SECRET}", SECRET]


# -- the SDKs ----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def sdk(proxy: Proxy) -> AsyncIterator[Any]:
    clients = []

    def client(key: str) -> openai.AsyncOpenAI:
        clients.append(openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key=key, max_retries=0))
        return clients[-1]

    yield client
    for one in clients:
        await one.close()


async def test_openais_sdk(sdk: Any) -> None:
    ask: dict[str, Any] = {"model": MODEL, "messages": MESSAGES, "max_tokens": 3}
    whole = await sdk(SECRET).chat.completions.create(**ask)
    assert whole.usage.completion_tokens == 3
    with pytest.raises(openai.AuthenticationError) as unknown:
        await sdk("wrong").chat.completions.create(**ask)
    assert unknown.value.code == "invalid_api_key"
    with pytest.raises(openai.PermissionDeniedError) as denied:
        await sdk(OTHER).chat.completions.create(**ask)
    assert (denied.value.code, denied.value.param) == ("model_not_allowed", "model")
    assert [model.id async for model in sdk(OTHER).models.list()] == ["llama-3"]


async def test_anthropics_sdk(proxy: Proxy) -> None:
    ask: dict[str, Any] = {"model": MODEL, "messages": MESSAGES, "max_tokens": 3}
    for key, error in (
        (SECRET, None),
        ("wrong", anthropic.AuthenticationError),
        (OTHER, anthropic.PermissionDeniedError),
    ):
        async with anthropic.AsyncAnthropic(base_url=proxy.url, api_key=key, max_retries=0) as claude:
            if error is None:
                assert (await claude.messages.create(**ask)).usage.output_tokens == 3
            else:
                with pytest.raises(error):
                    await claude.messages.create(**ask)


# -- what is written ---------------------------------------------------------------------------------------------------


async def test_who_asked_is_logged_and_counted_the_key_never(
    stage: Stage, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """All that is written in a run with good, bad and forbidden keys and a broken backend: no key, no prompt."""
    caplog.set_level(logging.DEBUG)
    prompt = "a-very-private-question"
    models = {MODEL: {"pool": "main"}, "llama-3": {"pool": "main"}}
    proxy = await stage.proxy(await stage.backend(fail="die_after=3"), keys=KEYS, models=models)
    body = chat() | {"messages": [{"role": "user", "content": prompt}]}
    for number, headers in enumerate((BEARER, RESTRICTED, [("x-api-key", SECRET + "?")], [("api-key", OTHER)], [])):
        await stage.ask(proxy, body, f"{CHAT}?api_key={SECRET}", headers=headers, id=f"r{number}")
    await stage.ask(proxy, body, f"/v1/{SECRET[:3]}", headers=RESTRICTED, id="r9")
    lines = {line["request_id"]: line for line in await proxy.log()}
    assert [(lines[f"r{n}"]["tenant"], lines[f"r{n}"]["key"], lines[f"r{n}"]["status"]) for n in range(5)] == [
        ("acme", "acme-1", 200),
        ("small", "small", 403),
        (None, None, 401),
        ("small", "small", 403),
        (None, None, 401),
    ]
    assert proxy.metric("llmproxy_tenant_requests_total", tenant="acme", status="200") == 1
    assert proxy.metric("llmproxy_tenant_tokens_total", tenant="acme", kind="completion") == 3
    assert proxy.metric("llmproxy_tenant_requests_total", tenant="small", status="403") == 3
    assert [proxy.metric("llmproxy_auth_total", result=kind) for kind in ("ok", "missing", "unknown")] == [4, 1, 1]
    output = capfd.readouterr()
    written = json.dumps(list(lines.values())) + caplog.text + output.out + output.err
    written += proxy.app._exposition.render()[0].decode()
    assert "acme-1" in written
    for secret in (SECRET, OTHER, prompt):
        assert secret not in written
    gate = proxy.handler.gate
    assert SECRET not in repr(proxy.app.config) + repr([getattr(gate, name) for name in dir(gate)])


async def test_tenants_beyond_the_bound_are_one_label(stage: Stage, proxy: Proxy) -> None:
    proxy.app.metrics.tenants._most = 0
    await stage.ask(proxy, chat(), headers=BEARER)
    assert proxy.metric("llmproxy_tenant_requests_total", tenant="other") == 1


# -- nobody is asked ---------------------------------------------------------------------------------------------------


async def test_without_keys_everyone_is_let_in_and_the_log_says_so(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    proxy = await stage.proxy(await stage.backend(), auth="none")
    assert (await stage.ask(proxy, chat())).status == 200
    assert proxy.handler.gate is None
    assert "auth: none" in caplog.text
    [line] = await proxy.log()
    assert (line["tenant"], line["key"]) == (None, None)


async def test_nobody_may_be_let_in_beside_keys_in_a_tier_of_theirs(stage: Stage) -> None:
    proxy = await stage.proxy(await stage.backend(), keys=KEYS, auth={"anonymous": "free"})
    for number, headers in enumerate(([], BEARER, [("x-api-key", "wrong")])):
        await stage.ask(proxy, chat(), headers=headers, id=f"r{number}")
    lines = {line["request_id"]: line for line in await proxy.log()}
    assert [(lines[f"r{n}"]["tenant"], lines[f"r{n}"]["status"]) for n in range(3)] == [
        ("ip:127.0.0.1", 200),
        ("acme", 200),
        (None, 401),
    ]
    assert proxy.metric("llmproxy_tenant_requests_total", tenant="anonymous") == 1


# -- reload ------------------------------------------------------------------------------------------------------------


async def test_keys_come_and_go_with_the_file_and_with_the_files_it_names(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(SECRET)
    engine = await stage.backend()
    file = tmp_path / "proxy.yaml"

    def write(keys: Any) -> None:
        file.write_text(yaml.safe_dump(settings({"main": {"backends": [engine.url]}}, tmp_path / "a.log", keys=keys)))

    watch = FileWatch()

    def read() -> Any:
        with watch.reading() as about_to_read:
            return load(file, on_file=about_to_read)

    async def status(key: str) -> int:
        return (await stage.ask(proxy, chat(stream=False), headers=[("api-key", key)])).status

    write([{"name": "k", "tier": "free", "file": "key"}])
    values = yaml.safe_load(file.read_text()) | {"keys": []}
    proxy = await stage.serve(values, load=read, watch=watch)
    assert await status("anything") == 200
    reload = proxy.app.reloader.reload
    assert (await reload(Trigger.ADMIN)).problems == ()
    assert (await status(SECRET), await status(OTHER)) == (200, 401)
    (tmp_path / "key").write_text(OTHER)
    assert await asyncio.to_thread(lambda: watch.look() or watch.look())
    result = await reload(Trigger.FILE)
    assert (result.problems, result.changed) == ((), True)
    assert (await status(SECRET), await status(OTHER)) == (401, 200)
    write([{"name": "k", "tier": "free", "file": "nowhere"}])
    assert "there is no file" in (await reload(Trigger.FILE)).problems[0]
    assert await status(OTHER) == 200
    write([])
    assert (await reload(Trigger.FILE)).ok
    await until(lambda: proxy.handler.gate is None, "no gate")
    assert await status("anything") == 200


def test_the_harness_reads_configurations_as_files_do() -> None:
    assert config_of({"pools": {"a": {"backends": ["http://a"]}}, "keys": KEYS}).keys[0].value != SECRET
