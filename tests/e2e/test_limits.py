"""Limits as clients meet them, counted in memory: who is refused, what the headers say, what is given back."""

from typing import Any

from tests.harness.client import Answer
from tests.harness.stage import Stage, chat

KEYS: list[dict[str, Any]] = [
    {"name": "dev", "tier": "free", "value": "sk-free"},
    {"name": "acme", "tier": "enterprise", "value": "sk-enterprise"},
]
FREE = [("Authorization", "Bearer sk-free")]
ENTERPRISE = [("Authorization", "Bearer sk-enterprise")]


async def test_the_eleventh_of_eleven_on_tier_free_is_refused(stage: Stage) -> None:
    proxy = await stage.proxy(await stage.backend(), keys=KEYS)
    answers: list[Answer] = [await stage.ask(proxy, chat(), headers=FREE) for _ in range(11)]
    assert [answer.status for answer in answers] == [200] * 10 + [429]
    assert [answer.header("x-ratelimit-limit-requests") for answer in answers] == ["10"] * 11
    assert [answer.header("x-ratelimit-remaining-requests") for answer in answers] == [
        str(left) for left in (9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0)
    ]
    refused = answers[-1]
    assert refused.json["error"]["code"] == "rate_limit_exceeded"
    assert 1 <= int(refused.header("retry-after") or 0) <= 6
    assert (await stage.ask(proxy, chat(), headers=ENTERPRISE)).status == 200
