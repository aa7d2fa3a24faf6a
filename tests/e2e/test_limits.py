"""Limits as clients meet them, counted in memory: who is refused, what the headers say, what is given back."""

import asyncio
from typing import Any

import openai
import pytest

from llmproxy.control.reload import Trigger
from tests.harness.client import Answer
from tests.harness.proxy import Proxy, config_of, settings
from tests.harness.scripted import Turn
from tests.harness.stage import CHAT, MODEL, Stage, chat
from tests.harness.waiting import until

KEYS: list[dict[str, Any]] = [
    {"name": "dev", "tier": "free", "value": "sk-free"},
    {"name": "shop", "tier": "paid", "value": "sk-paid"},
    {"name": "acme", "tier": "enterprise", "value": "sk-enterprise"},
]
WHOLE = chat(stream=False, max_tokens=1)
FREE = [("Authorization", "Bearer sk-free")]
PAID = [("Authorization", "Bearer sk-paid")]
ENTERPRISE = [("Authorization", "Bearer sk-enterprise")]
NAMES = [f"x-ratelimit-{what}-{unit}" for unit in ("requests", "tokens") for what in ("limit", "remaining", "reset")]


def limits_of(answer: Answer) -> dict[str, list[str]]:
    return {name: found for name in NAMES if (found := answer.all(name))}


def tier(**quota: Any) -> dict[str, Any]:
    """Sections in which the key `sk-free` has this quota."""
    return {"keys": KEYS, "tiers": {"free": quota, "paid": {}, "enterprise": {}}}


# -- requests a minute -------------------------------------------------------------------------------------------------


async def test_the_eleventh_of_eleven_on_tier_free_is_refused(stage: Stage) -> None:
    proxy = await stage.proxy(await stage.backend(), keys=KEYS)
    answers: list[Answer] = [await stage.ask(proxy, chat(), headers=FREE) for _ in range(11)]
    assert [answer.status for answer in answers] == [200] * 10 + [429]
    assert [answer.header("x-ratelimit-limit-requests") for answer in answers] == ["10"] * 11
    assert [answer.header("x-ratelimit-remaining-requests") for answer in answers] == [
        str(left) for left in (9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0)
    ]
    refused = answers[-1]
    assert refused.json["error"] | {"message": ""} == {
        "message": "",
        "type": "requests",
        "param": None,
        "code": "rate_limit_exceeded",
    }
    assert 1 <= int(refused.header("retry-after") or 0) <= 6
    assert (await stage.ask(proxy, chat(), headers=ENTERPRISE)).status == 200
    assert proxy.metric("llmproxy_limit_verdicts_total", tier="free", verdict="passed") == 10
    assert proxy.metric("llmproxy_limit_verdicts_total", tier="free", verdict="requests") == 1


@pytest.mark.parametrize(("headers", "limit"), [(FREE, "10"), (PAID, "60"), (ENTERPRISE, None)])
async def test_what_each_tier_is_told(stage: Stage, headers: Any, limit: str | None) -> None:
    proxy = await stage.proxy(await stage.backend(), keys=KEYS)
    for body in (chat(), WHOLE):
        answer = await stage.ask(proxy, body, headers=headers)
        assert answer.status == 200
        if limit is None:
            assert limits_of(answer) == {}
        else:
            assert list(limits_of(answer)) == NAMES[:3]
            assert answer.all("x-ratelimit-limit-requests") == [limit]


async def test_retry_after_is_honest(stage: Stage) -> None:
    """Not sooner, and not later."""
    proxy = await stage.proxy(await stage.backend(), **tier(requests_per_minute=6, burst={"requests": 1}))
    assert (await stage.ask(proxy, WHOLE, headers=FREE)).status == 200
    refused = await stage.ask(proxy, WHOLE, headers=FREE)
    assert (refused.status, refused.header("retry-after")) == (429, "10")
    stage.clock.jump(8)
    assert (await stage.ask(proxy, WHOLE, headers=FREE)).header("retry-after") in ("1", "2")
    stage.clock.jump(2)
    assert (await stage.ask(proxy, WHOLE, headers=FREE)).status == 200


async def test_a_body_that_took_minutes_does_not_fill_the_bucket(stage: Stage) -> None:
    server = {"timeouts": {"body": "10m"}}
    proxy = await stage.proxy(await stage.backend(), server=server, **tier(requests_per_minute=2))
    slow = await stage.client(proxy)
    body = b'{"model": "emulated", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}'
    head = f"POST {CHAT} HTTP/1.1\r\nHost: p\r\nAuthorization: Bearer sk-free\r\nContent-Length: {len(body)}\r\n\r\n"
    await slow.send_raw(head.encode() + body[:10])
    await until(lambda: proxy.app.listener.connections and proxy.metric("llmproxy_auth_total") == 1, "its head")
    stage.clock.jump(90)
    assert (await stage.ask(proxy, WHOLE, headers=FREE)).status == 200
    await slow.send_raw(body[10:])
    assert (await slow.answer()).status == 200
    assert (await stage.ask(proxy, WHOLE, headers=FREE)).status == 429


# -- on every answer ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [chat(), WHOLE])
@pytest.mark.parametrize(("fault", "statuses"), [("status=400", {400}), ("status=503", {502, 503}), ("reset", {502})])
async def test_limits_are_told_with_errors_as_well(stage: Stage, body: Any, fault: str, statuses: set[int]) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine, **tier(requests_per_minute=5, tokens_per_minute=1000))
    engine.set_fault(fault)
    answer = await stage.ask(proxy, body, headers=FREE)
    assert answer.status in statuses
    assert list(limits_of(answer)) == NAMES
    assert answer.all("x-ratelimit-remaining-requests") == ["4"]
    # Nothing was computed, so nothing was used.
    engine.set_fault("")
    again = await stage.ask(proxy, body, headers=FREE)
    assert again.header("x-ratelimit-remaining-tokens") == answer.header("x-ratelimit-remaining-tokens")


async def test_what_an_engine_says_of_limits_is_of_the_proxys_own(stage: Stage) -> None:
    async def script(turn: Turn) -> None:
        await turn.say(
            b"HTTP/1.1 200 OK\r\nX-RateLimit-Limit-Requests: 3\r\nx-one: 1\r\nx-ratelimit-remaining-tokens: 7\r\n"
            b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
        )

    engine = await stage.scripted(script)
    proxy = await stage.proxy(engine, keys=KEYS)
    answer = await stage.ask(proxy, WHOLE, headers=FREE)
    assert limits_of(answer) == {NAMES[0]: ["10"], NAMES[1]: ["9"], NAMES[2]: answer.all(NAMES[2])}
    assert answer.header("x-one") == "1"
    # Who is not limited here is shown what there is.
    assert (await stage.ask(proxy, WHOLE, headers=ENTERPRISE)).header("x-ratelimit-limit-requests") == "3"


async def test_the_sdk_knows_it_for_what_it_is(stage: Stage) -> None:
    proxy = await stage.proxy(await stage.backend(), **tier(requests_per_minute=1))
    async with openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="sk-free", max_retries=0) as client:
        raw = await client.chat.completions.with_raw_response.create(
            model=MODEL, messages=[{"role": "user", "content": "hello"}], max_tokens=2
        )
        assert raw.headers["x-ratelimit-remaining-requests"] == "0"
        for stream in (False, True):
            with pytest.raises(openai.RateLimitError) as refused:
                await client.chat.completions.create(
                    model=MODEL,
                    messages=[{"role": "user", "content": "hello"}],
                    stream=stream,
                )
            assert refused.value.code == "rate_limit_exceeded"
            assert 55 <= int(refused.value.response.headers["retry-after"]) <= 60
            assert refused.value.response.headers["x-ratelimit-limit-requests"] == "1"


# -- whose -------------------------------------------------------------------------------------------------------------


async def test_by_model_by_key_and_by_tenant(stage: Stage) -> None:
    keys = [
        {"name": "one", "tenant": "acme", "tier": "free", "value": "sk-one", "limits": {"requests_per_minute": 2}},
        {"name": "two", "tenant": "acme", "tier": "free", "value": "sk-two"},
    ]
    tiers = {"free": {"requests_per_minute": 6, "models": {"big": {"requests_per_minute": 1}}}}
    proxy = await stage.proxy(await stage.backend(models=("big", "small")), keys=keys, tiers=tiers)

    async def ask(key: str, model: str) -> tuple[int, str]:
        headers = [("Authorization", f"Bearer sk-{key}")]
        answer = await stage.ask(proxy, WHOLE | {"model": model}, headers=headers)
        return answer.status, "" if answer.status == 200 else answer.json["error"]["message"].split("; ")[0]

    assert await ask("two", "big") == (200, "")
    assert await ask("two", "big") == (429, "rate limit reached: 1 requests a minute for this model")
    assert [await ask("one", "small") for _ in range(2)] == [(200, "")] * 2
    assert await ask("one", "small") == (429, "rate limit reached: 2 requests a minute for this key")
    # Three of six are used; a refusal took nothing.
    assert [await ask("two", "small") for _ in range(3)] == [(200, "")] * 3
    assert await ask("two", "small") == (429, "rate limit reached: 6 requests a minute for this tenant")


async def test_without_a_key_by_address(stage: Stage) -> None:
    server = {"trusted_proxies": ["127.0.0.0/8"]}
    tiers = {"guest": {"requests_per_minute": 1, "concurrency": 1}}
    proxy = await stage.proxy(await stage.backend(), server=server, auth={"anonymous": "guest"}, tiers=tiers)

    async def ask(address: str) -> Answer:
        return await stage.ask(proxy, WHOLE, headers=[("X-Forwarded-For", address)])

    assert (await ask("192.0.2.1")).status == 200
    refused = await ask("192.0.2.1")
    assert (refused.status, refused.json["error"]["message"].split("; ")[0]) == (
        429,
        "rate limit reached: 1 requests a minute for this ip",
    )
    assert (await ask("192.0.2.2")).status == 200
    assert (await ask("2001:db8::1")).status == 200
    assert (await ask("2001:db8::2")).status == 429


# -- at the same time --------------------------------------------------------------------------------------------------


async def test_places_are_free_again_on_every_path(stage: Stage) -> None:
    engine = await stage.backend(itl_s=0.002)
    proxy = await stage.proxy(engine, pool={"retry": {"attempts": 1}}, **tier(concurrency=2))

    async def begin(body: Any, fault: str = "") -> Any:
        client = await stage.client(proxy)
        await client.send("POST", CHAT, body, [*FREE, ("X-Emulate-Fault", fault)])
        return client

    async def left(reset: bool) -> None:
        client = await begin(chat(max_tokens=100_000))
        answer = await client.head()
        await client.text(answer, 2)
        client.leave(reset=reset)

    async def leaves_early() -> None:
        client = await begin(chat(), "hang")
        await until(lambda: engine.in_flight == 1, "a request under way")
        client.leave()

    async def whole(body: Any, fault: str) -> None:
        client = await begin(body, fault)
        await client.answer()
        client.leave()

    holders = [await begin(chat(max_tokens=100_000)) for _ in range(2)]
    for holder in holders:
        await holder.head()
    refused = await stage.ask(proxy, WHOLE, headers=FREE)
    assert (refused.status, refused.header("retry-after")) == (429, "1")
    assert refused.json["error"]["message"] == "rate limit reached: 2 requests at the same time for this tenant"
    for holder in holders:
        holder.leave()
    await proxy.at_rest()
    for path in (
        whole(chat(), ""),
        whole(WHOLE, ""),
        whole(WHOLE, "status=400"),
        whole(chat(), "reset"),
        whole(chat(max_tokens=50), "die_after=3"),
        whole(chat(max_tokens=50), "abort_after=3"),
        left(False),
        left(True),
        leaves_early(),
        whole({"model": 7}, ""),
    ):
        await path
        await proxy.at_rest()
        assert proxy.app._limiting.limiter is not None
        assert proxy.app._limiting.limiter.store._leases == {}  # type: ignore[attr-defined]
    assert (await stage.ask(proxy, WHOLE, headers=FREE)).status == 200


async def test_two_thousand_who_leave_leave_nothing(stage: Stage) -> None:
    """In the queue, while an engine computes, and in the middle of their answers."""
    engine = await stage.backend(ttft_s=0.01, itl_s=0.01)
    quota = {"tokens_per_minute": 1, "burst": {"tokens": 10**9}, "concurrency": 10_000}
    proxy = await stage.proxy(engine, each={"max_concurrency": 50}, pool={"queue": {"max": 1000}}, **tier(**quota))
    body = chat(max_tokens=1000)

    async def leaver(number: int) -> None:
        client = await stage.client(proxy)
        await client.send("POST", CHAT, body, FREE)
        if number % 4 == 3:
            # Between this and nothing, everything happens.
            await asyncio.sleep((number % 100) / 5000)
        elif number % 4 < 3 and proxy.backend("b1").load.in_flight < 50:
            answer = await client.head()
            await client.text(answer, number % 3 + 1)
        client.leave(reset=bool(number % 2))

    for start in range(0, 2000, 100):
        await asyncio.gather(*(leaver(start + number) for number in range(100)))
    await proxy.at_rest()
    store = proxy.handler.limiter.store
    queue = proxy.pool().queue.queue
    assert (store._leases, queue.waiting, queue.bytes, queue.in_line()) == ({}, 0, 0, [])
    usage = proxy.handler.limiter.usage.view()["dev"]
    assert (usage["requests_passed"], usage["in_flight"]) == (2000, 0)
    # What is missing is what was computed, and no reservation.
    bucket = store._counts["t:dev:tpm"]
    assert 10**9 - bucket.value == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["completion_tokens"] < 2000 * 100


# -- budgets, changes --------------------------------------------------------------------------------------------------


async def test_budgets_of_tokens_and_of_money(stage: Stage) -> None:
    tiers = {
        "free": {"budgets": {"tokens_per_month": 60}},
        "paid": {"budgets": {"cost_per_day": 0.001}},
        "enterprise": {},
    }
    prices = {"*": {"completion": 100.0}}
    proxy = await stage.proxy(await stage.backend(), keys=KEYS, tiers=tiers, limits={"prices": prices})
    statuses = [(await stage.ask(proxy, chat(max_tokens=6), headers=FREE)).status for _ in range(4)]
    assert statuses == sorted(statuses)
    assert (statuses[0], statuses[-1]) == (200, 429)
    # Ten tokens at 100 a million are a tenth of a cent.
    first, second = [await stage.ask(proxy, chat(stream=False, max_tokens=10), headers=PAID) for _ in range(2)]
    assert (first.status, second.status) == (200, 429)
    assert second.json["error"]["type"] == "money"
    assert "the budget of 0.001 a day for this tenant is used up" in second.json["error"]["message"]
    assert int(second.header("retry-after") or 0) > 0
    assert (await stage.ask(proxy, chat(), headers=ENTERPRISE)).status == 200


async def test_a_reload_changes_quotas_and_empties_no_bucket(stage: Stage, tmp_path: Any) -> None:
    engine = await stage.backend()

    def values(limit: int) -> dict[str, Any]:
        pools = {"main": {"backends": [{"url": engine.url, "id": "b1"}]}}
        return settings(pools, tmp_path / "access-0.jsonl", **tier(requests_per_minute=limit))

    now = values(10)
    proxy = await stage.serve(now, load=lambda: config_of(now))

    async def left() -> str | None:
        return (await stage.ask(proxy, WHOLE, headers=FREE)).header("x-ratelimit-remaining-requests")

    assert [await left() for _ in range(4)] == ["9", "8", "7", "6"]
    for limit, expected in ((5, "4"), (20, "3")):
        now = values(limit)
        assert (await proxy.app.reloader.reload(Trigger.ADMIN)).ok
        # Six fit no more; then there is room for more, which has to come first.
        assert await left() == expected


async def test_what_takes_no_tokens_is_charged_as_a_request(stage: Stage) -> None:
    quota = {"requests_per_minute": 10, "tokens_per_minute": 1, "burst": {"tokens": 10_000}}
    proxy = await stage.proxy(await stage.backend(), **tier(**quota))
    made = await stage.ask(
        proxy, {"model": MODEL, "input": "hello", "max_output_tokens": 5}, "/v1/responses", headers=FREE
    )
    asked = [await stage.ask(proxy, path=f"/v1/responses/{made.json['id']}", headers=FREE)]
    asked.append(await stage.ask(proxy, {"model": MODEL, "prompt": "hello"}, "/tokenize", headers=FREE))
    asked.append(await stage.ask(proxy, method="HEAD", path="/v1/responses/resp_x", headers=FREE))
    assert [answer.status for answer in (made, *asked[:2])] == [200, 200, 200]
    left = [answer.header("x-ratelimit-remaining-tokens") for answer in asked]
    assert left == [left[0]] * 3
    assert bucket(proxy) == int(left[0] or 0)
    assert [answer.header("x-ratelimit-remaining-requests") for answer in asked] == ["8", "7", "6"]


def bucket(proxy: Proxy) -> int:
    """What is in the bucket of tokens of `sk-free`."""
    count = proxy.handler.limiter.store._counts["t:dev:tpm"]
    return int(count.value)
