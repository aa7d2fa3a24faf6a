"""What is told of a choice: units, order, bounds, and who is told."""

import json
import random
from types import SimpleNamespace

import pytest

from llmproxy.config.model import Config
from llmproxy.core.backend import Backend
from llmproxy.core.errors import BadRequest
from llmproxy.core.pool import Pool
from llmproxy.core.prompt import Prompt
from llmproxy.core.request import Request
from llmproxy.pipeline.explain import HEADER_MAX_BYTES, asked, explain_choice, weighed
from llmproxy.pipeline.snapshot import Snapshot
from llmproxy.policy.routing.registry import build
from llmproxy.wire.inbound import InboundRequest

TOKEN = "only for admins"


def pool_of(count, policy="expected_cost"):
    backends = [{"url": f"http://10.0.0.{number}:1", "id": f"backend-number-{number:03}"} for number in range(count)]
    config = Config.model_validate({"pools": {"main": {"policy": policy, "backends": backends}}})
    routing = build(policy, {}, random.Random(1))
    pool = Pool(
        "main", config.pools["main"], routing, SimpleNamespace(set_members=lambda members, now: None), None, None
    )
    pool.set_members([Backend(backend.spec("main")) for backend in config.pools["main"].backends], 0.0)
    return pool


class Asking:
    """As much of an exchange as explaining looks at."""

    def __init__(self, headers, pool, *, debug_headers=False, token=TOKEN):
        self.request = InboundRequest(0.0)
        self.request.read_head(b"POST", b"/", "1.1", [(b"Host", b"x"), *headers])
        config = Config.model_validate(
            {
                "server": {"debug_headers": debug_headers},
                "admin": {"token": token},
                "pools": {"main": {"backends": ["http://127.0.0.1:1"]}},
            }
        )
        self.snapshot = Snapshot(config, {"main": pool})
        self.view = Request(prompt=lambda: Prompt(8000))
        self.attempts = 0
        self.explained = b""

    def told(self, pool, chosen=None):
        explain_choice(self, pool, pool.backends, chosen or pool.backends[0], 0.0)
        return self.explained


DEBUG = (b"X-LLMProxy-Debug", b"route")


@pytest.mark.parametrize(
    ("headers", "options", "is_told"),
    [
        ([DEBUG], {"debug_headers": True}, True),
        ([(b"x-llmproxy-debug", b"other, Route ")], {"debug_headers": True}, True),
        ([(b"x-llmproxy-debug", b"routes")], {"debug_headers": True}, False),
        ([DEBUG], {}, False),
        ([DEBUG, (b"X-LLMProxy-Admin-Token", TOKEN.encode())], {}, True),
        ([DEBUG, (b"x-llmproxy-admin-token", b" %b " % TOKEN.encode())], {}, True),
        ([DEBUG, (b"X-LLMProxy-Admin-Token", TOKEN.encode() + b"s")], {}, False),
        ([DEBUG, (b"X-LLMProxy-Admin-Token", b"")], {"token": ""}, False),
        ([DEBUG, (b"X-LLMProxy-Admin-Token", b"\xff")], {}, False),
        ([DEBUG, (b"Authorization", b"Bearer " + TOKEN.encode())], {}, False),
    ],
)
def test_who_is_told(headers, options, is_told):
    pool = pool_of(2)
    assert bool(Asking(headers, pool, **options).told(pool)) is is_told


def test_the_token_and_the_wish_do_not_travel_on():
    pool = pool_of(1)
    request = Asking([DEBUG, (b"X-LLMProxy-Admin-Token", TOKEN.encode()), (b"X-Other", b"1")], pool).request
    assert request.forward == b"X-Other: 1\r\n"


def test_it_is_one_bounded_line_of_json_with_the_choice_first():
    pool = pool_of(300)
    for backend in pool.backends[:299]:
        backend.load.enter()
    chosen = pool.backends[150]
    line = Asking([DEBUG], pool, debug_headers=True).told(pool, chosen)
    name, _, value = line.partition(b": ")
    assert name == b"X-LLMProxy-Route"
    assert value.endswith(b"\r\n")
    assert value.count(b"\n") == 1
    assert HEADER_MAX_BYTES - 500 < len(value) <= HEADER_MAX_BYTES + 2
    said = json.loads(value)
    assert said["candidates"] == 300
    assert [row["backend"] for row in said["best"][:2]] == [chosen.id, pool.backends[299].id]


def test_seconds_are_told_in_milliseconds_and_add_up():
    pool = pool_of(2)
    pool.backends[1].load.enter()
    rows = weighed(pool, pool.backends, Request(prompt=lambda: Prompt(8000)), 0.0)
    assert [row["backend"] for row in rows] == ["backend-number-000", "backend-number-001"]
    best = rows[0]
    assert (best["uncached_tokens"], best["prefill_tokens_per_s"]) == (2000, 10_000)
    terms = [best[f"{term}_ms"] for term in ("waiting", "crowd", "prompt", "delay", "adapter")]
    assert best["cost_ms"] == pytest.approx(sum(terms), abs=0.01)
    # 2000 tokens at 10,000 a second, however much they weigh.
    assert best["prompt_ms"] >= 200
    assert "cost" not in best
    assert type(rows[1]["in_flight"]) is int


def test_scores_stay_scores_the_highest_first():
    pool = pool_of(3, "scored")
    pool.backends[0].load.enter()
    rows = weighed(pool, pool.backends, Request(), 0.0)
    assert rows[-1]["backend"] == "backend-number-000"
    assert rows[0]["score"] > rows[-1]["score"]


def test_a_policy_without_terms_is_told_by_load_and_weight():
    pool = pool_of(2, "least_connections")
    assert weighed(pool, pool.backends, Request(), 0.0) == [
        {"backend": backend.id, "in_flight": 0, "weight": 1.0} for backend in pool.backends
    ]


def test_infinity_is_no_json():
    pool = pool_of(1)
    pool.routing = SimpleNamespace(explain=lambda *_: [{"cost": float("inf"), "x_s": float("nan"), "y_s": 1.0}])
    [row] = weighed(pool, pool.backends, Request(), 0.0)
    assert (row["cost_ms"], row["x_ms"], row["y_ms"]) == (None, None, 1000.0)


def test_a_policy_that_fails_to_explain_itself_fails_no_request(caplog):
    pool = pool_of(1)

    def fails(*_):
        raise RuntimeError("no idea")

    pool.routing = SimpleNamespace(explain=fails)
    assert Asking([DEBUG], pool, debug_headers=True).told(pool) == b""
    assert "could not be explained" in caplog.text


def test_a_question_is_seen_as_a_request_would_be():
    config = Config.model_validate(
        {"pools": {"main": {"backends": ["http://127.0.0.1:1"]}}, "models": {"a": {"pool": "main", "rewrite": "b"}}}
    )
    site = SimpleNamespace(snapshot=Snapshot(config, {"main": pool_of(1)}), prefix_secret=b"")
    body = b'{"model": "a", "user": "u", "messages": [{"role": "user", "content": "%b"}]}' % (b"x" * 5000)
    request = asked(site, body)
    assert (request.model, request.body_bytes, request.field("user")) == ("b", len(body), "u")
    assert len(request.prompt.blocks) == 2
    bare = asked(site, b"", "c", 4000)
    assert (bare.model, bare.prompt.size, bare.prompt.blocks, bare.field("user")) == ("c", 4000, (), None)
    with pytest.raises(BadRequest):
        asked(site, b"[]")
