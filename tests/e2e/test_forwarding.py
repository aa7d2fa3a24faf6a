"""What a backend is sent: the client's request, less what belongs to its connection, plus what a proxy adds."""

import asyncio
import json
from typing import Any

import pytest

from tests.harness.client import request_bytes
from tests.harness.scripted import Turn
from tests.harness.stage import CHAT, MODEL, Stage, chat
from tests.harness.waiting import until


async def well(turn: Turn) -> None:
    await turn.answer(b'{"choices": []}')


async def forwarded(stage: Stage, *headers: tuple[str, str], **options: Any) -> Turn:
    """The request a backend gets for a chat with `headers`; `options` are the proxy's."""
    backend = await stage.scripted(well)
    proxy = await stage.proxy(backend, **options)
    assert (await stage.ask(proxy, chat(stream=False), headers=headers)).status == 200
    return backend.turns[-1]


async def test_it_says_who_forwards_for_whom(stage: Stage) -> None:
    turn = await forwarded(stage, ("User-Agent", "mine/1"), ("traceparent", "00-ab-cd-01"), ("X-Other", "a,  b"))
    assert turn.line == f"POST {CHAT} HTTP/1.1"
    assert len(turn.header("x-request-id") or "") == 32
    expected = {
        "host": turn.header("host"),
        "content-type": "application/json",
        "content-length": str(len(turn.body)),
        "user-agent": "mine/1",
        "traceparent": "00-ab-cd-01",
        "x-other": "a,  b",
        "accept-encoding": "identity",
        "x-request-id": turn.header("x-request-id"),
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-proto": "http",
        "x-forwarded-host": "proxy.test",
        "via": "1.1 llmproxy",
    }
    assert dict(turn.headers) == expected
    assert len(turn.headers) == len(expected)
    assert (turn.header("host") or "").startswith("127.0.0.1:")


FORWARDED = (
    ("X-Forwarded-For", "10.1.1.1, 192.168.0.9"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "api.example.com"),
    ("Forwarded", "for=10.1.1.1"),
    ("X-Real-IP", "10.1.1.1"),
    ("Via", "1.1 edge"),
)


async def test_strangers_do_not_speak_for_others(stage: Stage) -> None:
    turn = await forwarded(stage, *FORWARDED)
    assert turn.header("x-forwarded-for") == "127.0.0.1"
    assert turn.header("x-forwarded-proto") == "http"
    assert turn.header("x-forwarded-host") == "proxy.test"
    assert turn.header("via") == "1.1 edge, 1.1 llmproxy"
    assert turn.header("forwarded") is None
    assert turn.header("x-real-ip") is None


async def test_trusted_proxies_do(stage: Stage) -> None:
    backend = await stage.scripted(well)
    proxy = await stage.proxy(backend, server={"trusted_proxies": ["127.0.0.0/8", "192.168.0.0/16"]})
    await stage.ask(proxy, chat(stream=False), headers=FORWARDED, id="trusted")
    turn = backend.turns[-1]
    assert turn.header("x-forwarded-for") == "10.1.1.1, 192.168.0.9, 127.0.0.1"
    assert turn.header("x-forwarded-proto") == "https"
    assert turn.header("x-forwarded-host") == "api.example.com"
    assert (await proxy.record("trusted"))["client"] == "10.1.1.1"


CLIENTS_KEYS = (("Authorization", "Bearer mine"), ("X-API-Key", "mine"), ("api-key", "mine"))


async def test_the_clients_key_passes_unless_the_pool_has_one(stage: Stage) -> None:
    turn = await forwarded(stage, *CLIENTS_KEYS)
    assert [turn.header(name.lower()) for name, _ in CLIENTS_KEYS] == [value for _, value in CLIENTS_KEYS]
    # Ours takes the place of whichever kind the client's SDK sends.
    turn = await forwarded(stage, *CLIENTS_KEYS, pool={"upstream_key": "ours"})
    assert [turn.header(name.lower()) for name, _ in CLIENTS_KEYS] == ["Bearer ours", None, None]


async def test_a_slash_too_many_does_not_end_in_a_redirect_to_the_backend(stage: Stage) -> None:
    backend = await stage.scripted(well)
    proxy = await stage.proxy(backend, routes=[{"path": "/retrieve", "pool": "main"}])
    for path, sent in (
        (f"{CHAT}/", CHAT),
        (f"/{CHAT}//?a=/", f"{CHAT}?a=/"),
        ("/v1/%63hat/completions/", CHAT),
        ("/v1/files/", "/v1/files/"),
        ("/retrieve/", "/retrieve/"),
    ):
        await stage.ask(proxy, chat(stream=False), path)
        assert backend.turns[-1].line == f"POST {sent} HTTP/1.1"


async def test_hop_by_hop_and_nominated_headers_end_here(stage: Stage) -> None:
    turn = await forwarded(
        stage,
        ("Connection", "keep-alive, X-Mine, X-Also"),
        ("Connection", "X-Third"),
        ("X-Mine", "1"),
        ("x-also", "2"),
        ("X-Third", "3"),
        ("Keep-Alive", "timeout=3"),
        ("Proxy-Connection", "keep-alive"),
        ("Proxy-Authorization", "Basic x"),
        ("TE", "trailers"),
        ("Trailer", "X-T"),
        ("HTTP2-Settings", "AAMAAABkAAQAAP__"),
        ("Accept-Encoding", "gzip, br"),
        ("X-LLMProxy-Backend", "b9"),
        ("X-Kept", "4"),
    )
    names = {name for name, _ in turn.headers}
    assert names == {
        "host",
        "content-type",
        "content-length",
        "x-kept",
        "accept-encoding",
        "x-request-id",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "via",
    }
    assert turn.header("accept-encoding") == "identity"
    assert turn.body == json.dumps(chat(stream=False)).encode()


async def test_an_offered_upgrade_to_http2_is_passed_over(stage: Stage) -> None:
    """As Java's HttpClient offers it with its first request, body and all."""
    backend = await stage.scripted(well)
    proxy = await stage.proxy(backend)
    client = await stage.client(proxy)
    offer = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABkAAQAAP__")]
    for _ in range(2):
        assert (await client.ask("POST", CHAT, chat(stream=False), offer)).status == 200
        assert (await client.ask("GET", "/v1/files", headers=offer)).status == 200
    body = json.dumps(chat(stream=False)).encode()
    assert backend.bodies == [body, b""] * 2
    assert not {"upgrade", "http2-settings", "connection"} & {
        name for turn in backend.turns for name, _ in turn.headers
    }


@pytest.mark.parametrize(
    ("given", "kept"),
    [("chat-1.2:3/4+5=@x_Y", True), ("x" * 128, True), ("x" * 129, False), ("a b", False), ('a"b', False)],
)
async def test_a_sane_request_id_is_kept(stage: Stage, given: str, kept: bool) -> None:
    backend = await stage.scripted(well)
    proxy = await stage.proxy(backend)
    answer = await stage.ask(proxy, chat(stream=False), headers=[("X-Request-Id", given)])
    made = answer.header("x-request-id")
    assert made is not None
    assert (made == given) is kept
    assert kept or len(made) == 32
    assert backend.turns[0].header("x-request-id") == made
    assert (await proxy.record(made))["status"] == 200


async def test_request_ids_that_are_made_differ(stage: Stage) -> None:
    proxy = await stage.proxy(await stage.scripted(well))
    client = await stage.client(proxy)
    ids = {(await client.ask("POST", CHAT, chat(stream=False))).header("x-request-id") for _ in range(5)}
    assert len(ids) == 5


@pytest.mark.parametrize(("key", "sent"), [("", "Bearer theirs"), ("ours", "Bearer ours")])
async def test_the_pools_key_replaces_the_clients(stage: Stage, key: str, sent: str) -> None:
    turn = await forwarded(stage, ("Authorization", "Bearer theirs"), pool={"upstream_key": key})
    assert [value for name, value in turn.headers if name == "authorization"] == [sent]


async def test_the_pools_key_is_sent_for_clients_without_one(stage: Stage) -> None:
    assert (await forwarded(stage, pool={"upstream_key": "ours"})).header("authorization") == "Bearer ours"


async def test_a_base_path_comes_before_the_path(stage: Stage) -> None:
    backend = await stage.scripted(well)
    proxy = await stage.proxy(backend.url + "/engine/a/")
    assert (await stage.ask(proxy, path="/v1/files?x=1")).status == 200
    assert backend.turns[0].line == "GET /engine/a/v1/files?x=1 HTTP/1.1"


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("/v1/files?a=%2Fb&c=1?2", "GET /v1/files?a=%2Fb&c=1?2 HTTP/1.1"),
        ("/v1/files?", "GET /v1/files? HTTP/1.1"),
        ("http://elsewhere.test/v1/files?x", "GET /v1/files?x HTTP/1.1"),
        ("/v1//files/./a/../b", "GET /v1/files/b HTTP/1.1"),
        ("/%76%31/files/a%20b", "GET /v1/files/a%20b HTTP/1.1"),
        ("/v1/files/caf%C3%A9", "GET /v1/files/caf%C3%A9 HTTP/1.1"),
        ("/v1/files/", "GET /v1/files/ HTTP/1.1"),
    ],
)
async def test_the_target_is_sent_as_it_was_matched(stage: Stage, target: str, line: str) -> None:
    backend = await stage.scripted(well)
    proxy = await stage.proxy(backend)
    assert (await stage.ask(proxy, path=target)).status == 200
    assert backend.turns[0].line == line


async def test_an_absolute_target_names_the_host(stage: Stage) -> None:
    backend = await stage.scripted(well)
    proxy = await stage.proxy(backend)
    assert (await stage.ask(proxy, path="http://named.test:81/v1/files")).status == 200
    assert backend.turns[0].header("x-forwarded-host") == "named.test:81"


REWRITES = [
    (b'{"model":"alias"}', b'{"model":"real \\"name\\""}'),
    (b'{ "messages": [{"model": "alias"}],\n "model" :\t"alias" , "x": 1.50}',
     b'{ "messages": [{"model": "alias"}],\n "model" :\t"real \\"name\\"" , "x": 1.50}'),
    (b'{"text": "\\"model\\": \\"alias\\"", "model": "alias"}',
     b'{"text": "\\"model\\": \\"alias\\"", "model": "real \\"name\\""}'),
    (b'{"m\\u006fdel": "alias"}', b'{"m\\u006fdel": "real \\"name\\""}'),
    (b'{"model": "other", "model": "alias"}', b'{"model": "other", "model": "real \\"name\\""}'),
    (b'{"tools": {"model": "x"}, "model": "al\\u0069as", "n": 1e400}',
     b'{"tools": {"model": "x"}, "model": "real \\"name\\"", "n": 1e400}'),
]  # fmt: skip


@pytest.mark.parametrize(("sent", "received"), REWRITES)
async def test_an_alias_is_rewritten_in_place(stage: Stage, sent: bytes, received: bytes) -> None:
    backend = await stage.scripted(well)
    models = {"alias": {"pool": "main", "rewrite": 'real "name"'}, "plain": {"pool": "main"}}
    proxy = await stage.proxy(backend, models=models)
    answer = await stage.ask(proxy, sent, headers=[("Content-Type", "application/json")], id="alias")
    assert answer.status == 200
    assert backend.bodies == [received]
    assert backend.turns[0].header("content-length") == str(len(received))
    # Logs and metrics know the name that the client used.
    assert (await proxy.record("alias"))["model"] == "alias"
    assert proxy.metric("llmproxy_requests_total", model="alias", status="200") == 1


async def test_a_chunked_body_arrives_whole(stage: Stage) -> None:
    backend = await stage.scripted(well)
    proxy = await stage.proxy(backend)
    client = await stage.client(proxy)
    body = json.dumps(chat(stream=False)).encode()
    head = request_bytes("POST", CHAT, headers=[("Transfer-Encoding", "chunked"), ("Content-Type", "application/json")])
    chunks = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(body[i : i + 9]), body[i : i + 9]) for i in range(0, len(body), 9))
    for _ in range(2):
        await client.send_raw(head + chunks + b"0\r\nX-Trailer: 1\r\n\r\n")
        assert (await client.answer()).status == 200
    assert backend.bodies == [body, body]
    assert backend.turns[0].header("content-length") == str(len(body))
    assert backend.turns[0].header("transfer-encoding") is None


def form(model: str | None, file_bytes: int) -> tuple[bytes, list[tuple[str, str]]]:
    """A multipart body as SDKs send audio, the model after the file."""
    parts = [b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n'
             + bytes(range(256)) * (file_bytes // 256)]  # fmt: skip
    if model is not None:
        parts.append(b'Content-Disposition: form-data; name="model"\r\n\r\n' + model.encode())
    body = b"".join(b"--frontier\r\n" + part + b"\r\n" for part in parts) + b"--frontier--\r\n"
    return body, [("Content-Type", "multipart/form-data; boundary=frontier")]


async def test_a_form_is_routed_and_rewritten_by_its_model_field(stage: Stage) -> None:
    left, right = await stage.scripted(well), await stage.scripted(well)
    pools = {"right": {"backends": [{"url": right.url, "id": "r1"}]}}
    models = {"whisper": {"pool": "right", "rewrite": "whisper-large"}, MODEL: {"pool": "main"}}
    proxy = await stage.proxy(left, pools=pools, models=models)
    body, headers = form("whisper", 2048)
    answer = await stage.ask(proxy, body, "/v1/audio/transcriptions", headers=headers)
    assert answer.header("x-llmproxy-backend") == "r1"
    assert right.bodies == [form("whisper-large", 2048)[0]]
    assert left.turns == []


async def test_a_form_too_large_to_hold_streams_through(stage: Stage) -> None:
    backend = await stage.scripted(well)
    models = {MODEL: {"pool": "main"}, "whisper": {"pool": "main"}}
    limits = {"multipart": "64KiB", "body": "64KiB"}
    proxy = await stage.proxy(backend, models=models, server={"limits": limits})
    body, headers = form("whisper", 3 << 20)
    headers.append(("X-LLMProxy-Model", "whisper"))
    answer = await stage.ask(proxy, body, "/v1/audio/transcriptions", headers=headers, id="large")
    assert answer.status == 200
    assert backend.bodies == [body]
    record = await proxy.record("large")
    assert (record["model"], record["bytes_in"]) == ("whisper", len(body))
    assert proxy.handler.buffered == 0


def in_chunks(body: bytes, size: int) -> bytes:
    pieces = (body[start : start + size] for start in range(0, len(body), size))
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


async def test_a_form_of_unknown_length_is_read_whole_as_far_as_it_may_be(stage: Stage) -> None:
    left, right = await stage.scripted(well), await stage.scripted(well)
    proxy = await stage.proxy(
        left,
        pools={"right": {"backends": [{"url": right.url, "id": "r1"}]}},
        models={"whisper": {"pool": "right", "rewrite": "whisper-large"}, MODEL: {"pool": "main"}},
        server={"limits": {"multipart": "64KiB", "body": "64KiB"}},
    )
    client = await stage.client(proxy)
    small, headers = form("whisper", 2048)
    large = form("whisper", 1 << 20)[0]
    headers.append(("Transfer-Encoding", "chunked"))
    named = [*headers, ("X-LLMProxy-Model", "whisper")]
    path = "/v1/audio/transcriptions"
    # One behind the other, and then in one write, where each has to wait for its turn.
    for head, body in ((headers, small), (named, large), (headers, small)):
        await client.send("POST", path, headers=head)
        await client.send_raw(in_chunks(body, 700))
        answer = await client.answer()
        assert (answer.status, answer.header("x-llmproxy-backend")) == (200, "r1")
    await client.send_raw(
        request_bytes("POST", path, headers=headers) + in_chunks(small, 700)
        + request_bytes("POST", path, headers=named) + in_chunks(large, 7000)
        + request_bytes("POST", path, headers=headers) + in_chunks(small, 700)
    )  # fmt: skip
    assert [(await client.answer()).status for _ in range(3)] == [200] * 3
    rewritten = form("whisper-large", 2048)[0]
    assert right.bodies == [rewritten, large, rewritten] * 2
    assert (right.turns[0].header("content-length"), right.turns[1].header("content-length")) == (
        str(len(rewritten)),
        None,
    )
    assert left.turns == []
    # Too large, and without a word of which model it is for: nobody can tell where it goes.
    await client.send("POST", path, headers=headers)
    await client.send_raw(in_chunks(large, 7000))
    answer = await client.answer()
    assert (answer.status, answer.header("x-llmproxy-error")) == (400, "missing_model")
    assert proxy.handler.buffered == 0


async def test_a_form_that_overflows_and_breaks_off_leaves_nothing_behind(stage: Stage) -> None:
    backend = await stage.scripted(well)
    proxy = await stage.proxy(backend, server={"limits": {"multipart": "64KiB", "body": "64KiB"}})
    body, headers = form("whisper", 1 << 20)
    headers.append(("Transfer-Encoding", "chunked"))
    for broken in (b"", b"not a size\r\n"):
        client = await stage.client(proxy)
        await client.send("POST", "/v1/audio/transcriptions", headers=headers)
        await client.send_raw(in_chunks(body, 7000).removesuffix(b"0\r\n\r\n"))
        await until(lambda: proxy.handler.links.totals()[0] == 1, "the backend's connection")
        assert 0 < proxy.handler.buffered <= 64 << 10
        if broken:
            await client.send_raw(broken)
            assert (await client.answer()).status == 400
        else:
            client.leave()
        await until(lambda: not proxy.held(), f"nothing held: {proxy.held()}")
    assert backend.bodies == []


@pytest.mark.parametrize("leaves", [True, False])
async def test_a_form_that_overflows_while_it_waits_its_turn(stage: Stage, leaves: bool) -> None:
    go = asyncio.Event()

    async def late(turn: Turn) -> None:
        await go.wait()
        await well(turn)

    backend = await stage.scripted(late)
    proxy = await stage.proxy(backend, server={"limits": {"multipart": "2KiB", "body": "2KiB"}})
    body, headers = form("whisper", 2048)
    headers.append(("Transfer-Encoding", "chunked"))
    client = await stage.client(proxy)
    broken = b"7ff\r\n%b\r\n7ff\r\n%b\r\nnot a size\r\n" % (body[:0x7FF], body[:0x7FF])
    first, second = request_bytes("POST", CHAT, chat(stream=False)), request_bytes("POST", "/v1/files", headers=headers)
    await client.send_raw(first + second + broken)
    await until(lambda: backend.turns, "the first request")
    if leaves:
        client.leave()
    else:
        go.set()
        assert [(await client.answer()).status for _ in range(2)] == [200, 400]
    await until(lambda: not proxy.held(), f"nothing held: {proxy.held()}")
    go.set()
    assert len(backend.turns) == 1


async def test_a_chunked_upload_streams_through(stage: Stage) -> None:
    backend = await stage.scripted(well)
    proxy = await stage.proxy(backend)
    client = await stage.client(proxy)
    head = [("Transfer-Encoding", "chunked"), ("Content-Type", "application/octet-stream")]
    for _ in range(2):
        await client.send("PUT", "/v1/files/x", headers=head)
        for _ in range(50):
            await client.send_raw(b"1000\r\n" + b"z" * 4096 + b"\r\n")
        await client.send_raw(b"0\r\n\r\n")
        assert (await client.answer()).status == 200
    assert backend.bodies == [b"z" * 4096 * 50] * 2
    assert backend.turns[0].header("content-length") is None


async def test_an_upload_that_breaks_its_framing_is_refused(stage: Stage) -> None:
    backend = await stage.scripted(well)
    proxy = await stage.proxy(backend)
    client = await stage.client(proxy)
    head = [("Transfer-Encoding", "chunked"), ("Content-Type", "application/octet-stream"), ("X-Request-Id", "broken")]
    await client.send("PUT", "/v1/files/x", headers=head)
    await client.send_raw(b"1000\r\n" + b"z" * 4096 + b"\r\n")
    await until(lambda: proxy.handler.links.totals()[0] == 1, "the backend's connection")
    await client.send_raw(b"not a size\r\n")
    answer = await client.answer()
    assert (answer.status, answer.json["error"]["code"]) == (400, "malformed_request")
    assert await client.at_end()
    # What reached the backend never became a whole request.
    await until(lambda: proxy.handler.links.totals()[0] == 0, "the end of the backend's connection")
    assert backend.bodies == []
    assert (await proxy.record("broken"))["error"] == "malformed_request"


async def test_an_upload_that_stops_is_the_clients_fault(stage: Stage) -> None:
    proxy = await stage.proxy(await stage.scripted(well))
    client = await stage.client(proxy)
    head = [("Content-Length", "8192"), ("Content-Type", "application/octet-stream"), ("X-Request-Id", "late")]
    await client.send("PUT", "/v1/files/x", headers=head)
    await client.send_raw(b"z" * 4096)
    await until(lambda: proxy.handler.links.totals()[0] == 1, "the backend's connection")
    stage.clock.jump(61)
    answer = await client.answer()
    assert (answer.status, answer.json["error"]["code"]) == (408, "request_timeout")
    assert (await proxy.record("late"))["outcome"] == "abandoned"
