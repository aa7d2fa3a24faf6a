"""Access for browsers: off by default, by name or for all, and nothing reflected that was not asked for."""

import pytest

from llmproxy.config.model import CorsConfig
from llmproxy.pipeline.cors import cors_lines, is_preflight, preflight_lines, without_cors
from llmproxy.policy.limits.answers import header_lines
from llmproxy.wire.inbound import InboundRequest

ORIGIN = b"https://chat.example.com"


def request(method=b"POST", **headers):
    made = InboundRequest(0.0)
    fields = [(b"Host", b"a"), *((name.replace("_", "-").encode(), value) for name, value in headers.items())]
    made.read_head(method, b"/v1/models", "1.1", fields)
    return made


def sorted_lines(data):
    return dict(line.split(b": ", 1) for line in data.split(b"\r\n") if line)


def test_off_by_default():
    assert cors_lines(CorsConfig(), request(Origin=ORIGIN)) == b""
    assert preflight_lines(CorsConfig(), request(b"OPTIONS", Origin=ORIGIN)) == b""


def test_not_for_other_programs():
    assert cors_lines(CorsConfig(origins=("*",)), request()) == b""


def test_by_name():
    cors = CorsConfig(origins=(ORIGIN.decode(),))
    lines = sorted_lines(cors_lines(cors, request(Origin=ORIGIN)))
    assert lines[b"Access-Control-Allow-Origin"] == ORIGIN
    assert lines[b"Vary"] == b"Origin"
    exposed = lines[b"Access-Control-Expose-Headers"].split(b", ")
    assert b"X-Request-Id" in exposed
    told = header_lines((10, 9, 6000), (20000, 19900, 100)).split(b"\r\n")[:-1]
    assert len(told) == 6
    assert {line.partition(b":")[0] for line in told} < set(exposed)


@pytest.mark.parametrize(
    "origin", [b"https://evil.example.com", ORIGIN + b".evil.com", ORIGIN[:-1], b"null", b"", b"\xe9", ORIGIN.upper()]
)
def test_not_for_others(origin):
    cors = CorsConfig(origins=(ORIGIN.decode(),))
    asked = request(b"OPTIONS", Origin=origin, Access_Control_Request_Method=b"POST")
    assert cors_lines(cors, asked) == preflight_lines(cors, asked) == b"Vary: Origin\r\n"


def test_for_all():
    lines = sorted_lines(cors_lines(CorsConfig(origins=("*",)), request(Origin=b"https://any.example")))
    assert lines[b"Access-Control-Allow-Origin"] == b"*"


def test_preflight():
    cors = CorsConfig(origins=(ORIGIN.decode(),))
    asked = request(b"OPTIONS", Origin=ORIGIN, Access_Control_Request_Method=b"POST")
    assert is_preflight(asked)
    lines = sorted_lines(preflight_lines(cors, asked))
    assert lines[b"Access-Control-Allow-Origin"] == ORIGIN
    assert b"POST" in lines[b"Access-Control-Allow-Methods"]
    assert b"Authorization" in lines[b"Access-Control-Allow-Headers"]
    assert int(lines[b"Access-Control-Max-Age"]) == cors.max_age
    asked = request(
        b"OPTIONS", Origin=ORIGIN, Access_Control_Request_Method=b"POST", Access_Control_Request_Headers=b"x-a, x-b"
    )
    assert sorted_lines(preflight_lines(cors, asked))[b"Access-Control-Allow-Headers"] == b"x-a, x-b"


def test_engines_do_not_say_it_too():
    kept = b"Date: x\r\nX-Access-Control-Allow-Origin: *\r\nVary: Origin\r\n"
    lines = b"Date: x\r\naccess-control-allow-origin: *\r\nX-Access-Control-Allow-Origin: *\r\n"
    lines += b"Access-Control-Expose-Headers: access-control-x\r\nVary: Origin\r\n"
    assert without_cors(lines) == kept
    assert without_cors(kept) == kept
    assert without_cors(b"") == b""


def test_what_is_no_preflight():
    assert not is_preflight(request(b"OPTIONS", Origin=ORIGIN))
    assert not is_preflight(request(b"POST", Origin=ORIGIN, Access_Control_Request_Method=b"POST"))
