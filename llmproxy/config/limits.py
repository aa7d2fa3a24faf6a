"""Where limits are counted, and what tokens cost."""

from typing import Annotated, Literal

from pydantic import Field, ValidatorFunctionWrapHandler, WrapValidator

from llmproxy.config.section import Section
from llmproxy.config.units import Duration
from llmproxy.config.values import Name, RedisAddress
from llmproxy.core.limits import MICRO


def _store(value: str, check: ValidatorFunctionWrapHandler) -> str:
    if value == "memory":
        return value
    try:
        return str(check(value))
    except ValueError as error:
        if isinstance(value, str) and "://" in value:
            raise
        raise ValueError("must begin with redis://, rediss://, sentinel:// or cluster:// (or be `memory`)") from error


class PriceConfig(Section):
    """Per million tokens."""

    prompt: float = Field(0.0, ge=0, le=MICRO, description="Of a million prompt tokens.")
    completion: float = Field(0.0, ge=0, le=MICRO, description="Of a million generated tokens.")


class SharedLimitsConfig(Section):
    store: Annotated[RedisAddress, WrapValidator(_store)] = Field(
        "memory",
        repr=False,
        description="Where limits are counted: `memory` (each proxy for itself), or, shared by several proxies, "
        "`redis://host:6379/0`, `rediss://`, `sentinel://host:26379,host/name` or `cluster://host,host`.",
    )
    on_store_failure: Literal["local", "allow", "deny"] = Field(
        "local",
        description="While Redis is out of reach: `local` counts here, with this proxy's part of each limit; `allow` "
        "lets everything pass, `deny` nothing.",
    )
    store_timeout: Duration = Field(
        0.025, gt=0, le=1, description="Longest wait for Redis; after that it counts as out of reach."
    )
    lease_ttl: Duration = Field(
        30.0, ge=5, description="After how long the places (`concurrency`) of a proxy that died are free again."
    )
    namespace: Name = Field(
        "llmproxy", description="What its keys in Redis begin with, for several fleets on one Redis."
    )
    prices: dict[str, PriceConfig] = Field(
        default_factory=dict,
        description="What a million tokens of a model cost, for budgets of money; `*` is any other model.",
    )
