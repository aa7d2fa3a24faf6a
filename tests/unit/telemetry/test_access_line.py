import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy.telemetry.line import STRING_MAX_CHARS, LineEncoder
from llmproxy.telemetry.record import AccessRecord

FIELDS = [
    *("time", "request_id", "client", "method", "path", "pool", "model", "backend", "status", "stream", "ttft_ms"),
    *("duration_ms", "queue_ms", "prompt_tokens", "completion_tokens", "cached_tokens", "tokens_source", "attempts"),
    *("retries", "bytes_in", "bytes_out", "outcome", "error", "tenant", "key"),
]


def line(record: AccessRecord) -> bytes:
    return LineEncoder().encode([record])


def with_path(path: str | bytes) -> AccessRecord:
    return AccessRecord(0.0, "id", "10.0.0.1", "GET", path)


def test_a_whole_line() -> None:
    record = AccessRecord(
        *(1767225599.9996, "req-1", "10.0.0.9", "POST", "/v1/chat/completions", "llama", "llama-3-8b", "llama-0"),
        *(200, True, 12.346, 345.0, None, 120, 256, 64, "usage", 2, ["reset"], 1234, 45678, "cut", "upstream_failed"),
        *("acme", "acme-1"),
    )
    assert line(record) == (
        b'{"time":"2025-12-31T23:59:59.999Z","request_id":"req-1","client":"10.0.0.9","method":"POST",'
        b'"path":"/v1/chat/completions","pool":"llama","model":"llama-3-8b","backend":"llama-0","status":200,'
        b'"stream":true,"ttft_ms":12.346,"duration_ms":345.0,"queue_ms":null,"prompt_tokens":120,'
        b'"completion_tokens":256,"cached_tokens":64,"tokens_source":"usage","attempts":2,"retries":["reset"],'
        b'"bytes_in":1234,"bytes_out":45678,"outcome":"cut","error":"upstream_failed","tenant":"acme",'
        b'"key":"acme-1"}\n'
    )


def test_the_least_a_record_says_has_all_the_keys() -> None:
    said = json.loads(line(with_path("/")))
    assert list(said) == FIELDS
    assert (said["time"], said["model"], said["retries"]) == ("1970-01-01T00:00:00.000Z", None, [])


def test_the_second_is_not_carried_over_to_other_records() -> None:
    records = [with_path("/") for _ in range(4)]
    for record, at in zip(records, (10.5, 10.25, 11.0, 10.0), strict=True):
        record.time = at
    times = [json.loads(one)["time"][17:] for one in LineEncoder().encode(records).splitlines()]
    assert times == ["10.500Z", "10.250Z", "11.000Z", "10.000Z"]


def test_query_string_never_gets_into_a_line() -> None:
    assert json.loads(line(with_path("/v1/models?api_key=sk-secret")))["path"] == "/v1/models"
    assert json.loads(line(with_path(b"/v1/models?api_key=sk-secret\xff")))["path"] == "/v1/models"


def test_path_that_is_not_utf_8() -> None:
    assert json.loads(line(with_path(b"/caf\xe9/\xf0\x9f\x98\x80")))["path"] == "/caf\\xe9/\U0001f600"


@pytest.mark.parametrize(
    "name", ["request_id", "client", "method", "path", "model", "backend", "error", "tenant", "key"]
)
def test_lone_surrogates_and_bytes_spoil_neither_their_line_nor_the_batch(name: str) -> None:
    odd, fine = with_path("/odd"), with_path("/fine")
    setattr(odd, name, "x\udcff\ud800")
    encoder = LineEncoder()
    first, second = map(json.loads, encoder.encode([odd, fine]).splitlines())
    assert first[name] == "x\\udcff\\ud800"
    assert second["path"] == "/fine"
    assert encoder.failed == 0


def test_record_that_cannot_be_encoded_is_counted_and_spares_the_others() -> None:
    bad, fine = with_path("/bad"), with_path("/fine")
    bad.status = object()  # type: ignore[assignment]
    encoder = LineEncoder()
    assert [json.loads(one)["path"] for one in encoder.encode([fine, bad, with_path("/too")]).splitlines()] == [
        "/fine",
        "/too",
    ]
    assert encoder.failed == 1


@pytest.mark.parametrize("name", ["request_id", "path", "model"])
def test_long_strings_are_cut(name: str) -> None:
    record = with_path("/")
    setattr(record, name, "x" * 100_000)
    assert json.loads(line(record))[name] == "x" * STRING_MAX_CHARS + "..."


def test_line_ends_and_terminal_controls_are_escaped() -> None:
    path = '/\r\n\x00\x1b[2J\x7f\x85\x9b2J\u2028\u2029\u202a"\\'
    data = line(with_path(path))
    assert data.count(b"\n") == 1
    assert b"\\u001b[2J\\u007f\\u0085\\u009b2J\\u2028\\u2029" in data
    assert json.loads(data)["path"] == path


@given(st.lists(st.one_of(st.text(max_size=30), st.binary(max_size=30)), min_size=1, max_size=5))
def test_any_string_is_one_safe_line(paths: list[str | bytes]) -> None:
    data = LineEncoder().encode([with_path(path) for path in paths])
    text = data.decode("utf-8")
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]", text)
    lines = text.splitlines()
    assert len(lines) == len(paths)
    for path, one in zip(paths, lines, strict=True):
        said = json.loads(one)["path"]
        if isinstance(path, str):
            assert said == path.partition("?")[0]
