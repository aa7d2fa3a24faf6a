"""Errors of the proxy's own, in the path's dialect, as whole answers and as events."""

import json

import h11
import pytest

from llmproxy.core.errors import BadRequest, NotFound, Overloaded, UpstreamFailed
from llmproxy.pipeline.answer import STATUS_LINES, error_answer, error_event, own_answer, status_line
from llmproxy.pipeline.routes import Dialect

NASTY = 'a "quoted"\r\nSet-Cookie: x\r\n\r\n\n\ndata: é\u2028\0'


def read(answer, *, method="POST"):
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(answer)
    response = client.next_event()
    assert isinstance(response, h11.Response)
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert client.trailing_data[0] == b""
    return response.status_code, {name.decode(): value.decode() for name, value in response.headers}, body


def test_openai():
    error = NotFound("no such model", code="model_not_found", param="model")
    status, headers, body = read(error_answer(error, Dialect.OPENAI, keep_alive=True, minor=1, headers=b"X-A: 1\r\n"))
    assert status == 404
    assert headers["x-llmproxy-error"] == "model_not_found"
    assert headers["x-a"] == "1"
    assert "connection" not in headers
    assert json.loads(body) == {
        "error": {
            "message": "no such model",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    }


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (BadRequest("x"), "invalid_request_error"),
        (NotFound("x"), "not_found_error"),
        (BadRequest("x", status=413), "request_too_large"),
        (Overloaded("x"), "overloaded_error"),
        (UpstreamFailed("x"), "api_error"),
    ],
)
def test_anthropic(error, kind):
    _, _, body = read(error_answer(error, Dialect.ANTHROPIC, keep_alive=True, minor=1))
    assert json.loads(body) == {"type": "error", "error": {"type": kind, "message": "x"}}


def test_retry_after_and_fields_of_its_own():
    error = Overloaded("x", retry_after_s=7, headers=((b"X-Limit", b"3"),))
    status, headers, _ = read(error_answer(error, Dialect.OPENAI, keep_alive=True, minor=1))
    assert (status, headers["retry-after"], headers["x-limit"]) == (503, "7", "3")


@pytest.mark.parametrize(
    ("keep_alive", "minor", "connection"),
    [(True, 1, None), (True, 0, "keep-alive"), (False, 1, "close"), (False, 0, "close")],
)  # fmt: skip
def test_connection(keep_alive, minor, connection):
    _, headers, _ = read(error_answer(BadRequest("x"), Dialect.OPENAI, keep_alive=keep_alive, minor=minor))
    assert headers.get("connection") == connection


def test_no_body_for_head():
    whole = error_answer(BadRequest("x"), Dialect.OPENAI, keep_alive=True, minor=1)
    answer = error_answer(BadRequest("x"), Dialect.OPENAI, keep_alive=True, minor=1, bodyless=True)
    status, headers, body = read(answer, method="HEAD")
    assert (status, body) == (400, b"")
    assert headers == read(whole)[1]
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("dialect", Dialect)
def test_nothing_in_a_message_gets_out_of_it(dialect):
    _, headers, body = read(error_answer(BadRequest(NASTY), dialect, keep_alive=True, minor=1))
    assert json.loads(body)["error"]["message"] == NASTY
    assert "set-cookie" not in headers
    event = error_event(BadRequest(NASTY), dialect)
    assert event.count(b"\n\n") == 1
    assert event.endswith(b"\n\n")
    assert b"\r" not in event
    (line,) = [line for line in event.split(b"\n") if line.startswith(b"data: ")]
    assert json.loads(line[6:])["error"]["message"] == NASTY


def test_events_are_named_as_the_dialect_does():
    assert error_event(BadRequest("x"), Dialect.OPENAI).startswith(b"data: {")
    assert error_event(BadRequest("x"), Dialect.ANTHROPIC).startswith(b"event: error\ndata: {")


def test_status_lines():
    assert status_line(200) == b"HTTP/1.1 200 OK\r\n"
    assert status_line(599) == b"HTTP/1.1 599 \r\n"
    assert all(line.count(b"\r\n") == 1 and line.isascii() for line in STATUS_LINES.values())


def test_own_answer():
    answer = own_answer(200, b"hello", keep_alive=True, minor=1, content_type=b"text/plain")
    assert read(answer) == (200, {"content-type": "text/plain", "content-length": "5"}, b"hello")
