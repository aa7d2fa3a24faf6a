"""Tokens of an issuer over real sockets: its keys fetched beforehand, replaced, and not to be had."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml

from llmproxy.config.loader import load
from llmproxy.control import jwks
from llmproxy.control.file_watch import FileWatch
from llmproxy.control.reload import Trigger
from tests.harness.issuer import AUDIENCE, ISSUER, Issuer, JwksServer, serving
from tests.harness.proxy import Proxy, settings
from tests.harness.stage import MESSAGES, MODEL, Stage, chat
from tests.harness.waiting import until


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
async def server(issuer: Issuer) -> AsyncIterator[JwksServer]:
    async with serving(issuer.jwks()) as server:
        yield server


def auth(server: JwksServer, **options: Any) -> dict[str, Any]:
    return {"jwt": {"issuer": ISSUER, "audience": [AUDIENCE], "jwks": f"{server.url}/jwks", "tier": "free"} | options}


async def status(stage: Stage, proxy: Proxy, token: str) -> int:
    return (await stage.ask(proxy, chat(stream=False), headers=[("Authorization", f"Bearer {token}")])).status


async def test_a_token_is_a_key(stage: Stage, issuer: Issuer, server: JwksServer) -> None:
    proxy = await stage.proxy(await stage.backend(), auth=auth(server))
    async with openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key=issuer.token(), max_retries=0) as client:
        said = await client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=3)  # type: ignore[call-overload]
        assert said.usage.completion_tokens == 3
    for claims, found in (
        ({"exp": time.time() - 60}, 401),
        ({"aud": "other"}, 401),
        ({"iss": "other"}, 401),
        ({"models": ["llama-*"]}, 403),
        ({"tier": "gold"}, 403),
        ({"tier": "paid"}, 200),
    ):
        assert await status(stage, proxy, issuer.token(**claims)) == found, claims  # type: ignore[arg-type]
    [line] = [line for line in await proxy.log() if line["status"] == 200][:1]
    assert (line["tenant"], line["key"]) == ("acme", "jwt")
    assert server.asked == ["/jwks"], "fetched once, beforehand, however many tokens come"


async def test_beside_keys_of_the_file(stage: Stage, issuer: Issuer, server: JwksServer) -> None:
    keys = [{"name": "k", "tier": "free", "value": "sk-file"}]
    proxy = await stage.proxy(await stage.backend(), auth=auth(server), keys=keys)
    assert [await status(stage, proxy, key) for key in ("sk-file", issuer.token("ec"), "sk-no")] == [200, 200, 401]


async def test_the_discovery_document_says_where_the_keys_are(stage: Stage, issuer: Issuer, server: JwksServer) -> None:
    proxy = await stage.proxy(await stage.backend(), auth=auth(server, jwks="", issuer=server.url))
    assert await status(stage, proxy, issuer.token(iss=server.url)) == 200
    assert server.asked == ["/.well-known/openid-configuration", "/jwks"]


async def test_the_discovery_document_of_somebody_else(stage: Stage, issuer: Issuer, server: JwksServer) -> None:
    server.issuer = "https://other.example.com"
    proxy = await stage.proxy(await stage.backend(), auth=auth(server, jwks="", issuer=server.url))
    assert await status(stage, proxy, issuer.token(iss=server.url)) == 503


async def test_the_issuer_rotates_its_keys(
    stage: Stage, issuer: Issuer, server: JwksServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "SOON_S", 0.05)
    server.jwks = issuer.jwks("ec")
    proxy = await stage.proxy(await stage.backend(), auth=auth(server))
    assert await status(stage, proxy, issuer.token("rsa")) == 401
    server.jwks = issuer.jwks("rsa")
    token = issuer.token("rsa", sub="again")

    async def is_good() -> bool:
        return await status(stage, proxy, token + "") == 200

    # What was refused is remembered for a moment, but not beyond a new set of keys.
    await until(is_good, "the new key")
    assert await status(stage, proxy, issuer.token("ec")) == 401


async def test_a_dead_issuer_stops_nobody_whose_key_is_known(
    stage: Stage, issuer: Issuer, server: JwksServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "SOON_S", 0.05)
    server.jwks = issuer.jwks("ec")
    proxy = await stage.proxy(await stage.backend(), auth=auth(server))
    assert await status(stage, proxy, issuer.token("ec")) == 200
    server.status = 500
    asked = len(server.asked)
    assert await status(stage, proxy, issuer.token("rsa", sub="one")) == 401
    await until(lambda: len(server.asked) > asked, "another fetch")

    async def is_unknown() -> bool:
        return await status(stage, proxy, issuer.token("rsa", sub="two")) == 503

    await until(is_unknown, "503 for what cannot be told")
    assert await status(stage, proxy, issuer.token("ec", sub="three")) == 200


async def test_an_issuer_that_is_dead_at_start(
    stage: Stage, issuer: Issuer, server: JwksServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(jwks, "LONGEST_PAUSE_S", 0.05)
    server.status = 500
    proxy = await stage.proxy(await stage.backend(), auth=auth(server))
    assert await status(stage, proxy, issuer.token()) == 503
    server.status = 200

    async def is_good() -> bool:
        return await status(stage, proxy, issuer.token()) == 200

    await until(is_good, "the keys")


async def test_keys_in_a_file_are_watched(stage: Stage, issuer: Issuer, tmp_path: Path) -> None:
    (tmp_path / "jwks.json").write_bytes(issuer.jwks("ec"))
    engine = await stage.backend()
    values = settings({"main": {"backends": [engine.url]}}, tmp_path / "a.log")
    values["auth"] = {"jwt": {"issuer": ISSUER, "audience": [AUDIENCE, "more"], "jwks": "jwks.json", "tier": "free"}}
    (tmp_path / "proxy.yaml").write_text(yaml.safe_dump(values))
    watch = FileWatch()

    def read() -> Any:
        with watch.reading() as about_to_read:
            return load(tmp_path / "proxy.yaml", on_file=about_to_read)

    values["auth"]["jwt"]["jwks"] = str(tmp_path / "jwks.json")
    proxy = await stage.serve(values, load=read, watch=watch)
    reload = proxy.app.reloader.reload
    assert (await reload(Trigger.ADMIN)).ok
    assert [await status(stage, proxy, issuer.token(key)) for key in ("ec", "rsa")] == [200, 401]
    (tmp_path / "jwks.json").write_bytes(issuer.jwks("rsa"))
    assert await asyncio.to_thread(lambda: watch.look() or watch.look())
    result = await reload(Trigger.FILE)
    assert (result.problems, result.changed) == ((), True)
    assert [await status(stage, proxy, issuer.token(key)) for key in ("ec", "rsa")] == [401, 200]
    (tmp_path / "jwks.json").write_text("{}")
    assert "no JWK Set" in (await reload(Trigger.FILE)).problems[0]
    assert await status(stage, proxy, issuer.token("rsa")) == 200
