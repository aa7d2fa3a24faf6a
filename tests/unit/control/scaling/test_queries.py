"""Outside queries: what an answer of Prometheus says, and how long it counts."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from llmproxy.control.scaling.queries import MAX_AGE_S, Queries, Query, value_in
from llmproxy.core.clock import ManualClock
from tests.harness.waiting import until


def vector(*values: Any) -> dict[str, Any]:
    result = [{"metric": {}, "value": [1.0, value]} for value in values]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


def test_one_number_is_read() -> None:
    assert value_in(vector("12.5")) == 12.5
    assert value_in({"data": {"resultType": "scalar", "result": [1.0, "3"]}}) == 3.0


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (vector(), "no series: nothing matches it"),
        (vector("1", "2"), "2 series, not one: aggregate them"),
        (vector("NaN"), "nan"),
        (vector("+Inf"), "inf"),
        ({"status": "error"}, "not an answer"),
        ([], "not an answer"),
    ],
)
def test_anything_else_is_told(answer: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        value_in(answer)


class Prometheus:
    """Answers `answer` to every query, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answer: Any = vector("7")
        self.status = 200
        self.asked: list[tuple[str, str]] = []
        self.url = ""

    async def query(self, request: web.Request) -> web.Response:
        self.asked.append((request.query["query"], request.headers.get("Authorization", "")))
        return web.json_response(self.answer, status=self.status)


@pytest.fixture
async def prometheus() -> AsyncIterator[Prometheus]:
    served = Prometheus()
    app = web.Application()
    app.router.add_get("/api/v1/query", served.query)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    served.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield served
    await runner.cleanup()


async def test_answers_count_for_a_while(prometheus: Prometheus) -> None:
    clock = ManualClock(100.0)
    queries = Queries({"load": Query(prometheus.url + "/", "sum(up)", "the-token")}, clock)
    assert queries.answers(clock()) == []
    queries.start()
    try:
        await until(lambda: queries.answers(clock()) == [("load", 7.0)], "an answer")
        assert prometheus.asked == [("sum(up)", "Bearer the-token")]
        assert queries.answers(clock() + MAX_AGE_S) == [("load", 7.0)]
        assert queries.answers(clock() + MAX_AGE_S + 1.0) == [], "unknown, never the last"
    finally:
        await queries.stop()


async def test_one_that_fails_is_unknown_and_told_once(
    prometheus: Prometheus, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmproxy.control.scaling.queries.EVERY_S", 0.0)
    prometheus.status = 503
    queries = Queries({"load": Query(prometheus.url, "sum(up)")}, ManualClock())
    queries.start()
    try:
        await until(lambda: len(prometheus.asked) > 3, "some questions")
        assert queries.answers(0.0) == []
        assert [one.getMessage() for one in caplog.records] == ["scaling query load: status 503"]
        prometheus.status, prometheus.answer = 400, {"status": "error", "error": "parse error: unclosed ("}
        await until(lambda: len(caplog.records) == 2, "another complaint")
        assert caplog.records[1].getMessage() == "scaling query load: status 400: parse error: unclosed ("
        prometheus.answer = vector("7")
        prometheus.status = 200
        await until(lambda: queries.answers(0.0) == [("load", 7.0)], "an answer")
    finally:
        await queries.stop()


async def test_a_reload_changes_what_is_asked(prometheus: Prometheus) -> None:
    """At once, though the next round is far away."""
    queries = Queries({}, ManualClock())
    queries.start()
    try:
        queries.change({"a": Query(prometheus.url, "one")})
        await until(lambda: queries.answers(0.0) == [("a", 7.0)], "an answer")
        prometheus.answer = vector("8")
        queries.change({"a": Query(prometheus.url, "one"), "b": Query(prometheus.url, "two")})
        assert queries.answers(0.0) == [("a", 7.0)], "what is asked as before keeps its answer"
        await until(lambda: dict(queries.answers(0.0)).get("b") == 8.0, "an answer to the new one")
        queries.change({"a": Query(prometheus.url, "three")})
        assert queries.answers(0.0) == [], "that was an answer to something else"
        await until(lambda: queries.answers(0.0) == [("a", 8.0)], "an answer to the other one")
    finally:
        await queries.stop()


async def test_an_answer_that_is_too_long_is_none(prometheus: Prometheus, caplog: pytest.LogCaptureFixture) -> None:
    prometheus.answer = {"data": {"resultType": "vector", "result": ["x" * 2**20]}}
    queries = Queries({"load": Query(prometheus.url, "up")}, ManualClock())
    queries.start()
    try:
        await until(lambda: bool(caplog.records), "a complaint")
        assert caplog.records[0].getMessage().startswith("scaling query load: the answer is too long")
    finally:
        await queries.stop()
