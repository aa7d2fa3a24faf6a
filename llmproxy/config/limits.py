"""Where limits are counted, and what tokens cost."""

from importlib.util import find_spec
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from llmproxy.config.section import Section
from llmproxy.config.units import Duration
from llmproxy.config.values import Name
from llmproxy.core.limits import MICRO
from llmproxy.core.redis_url import parse_redis_url


def _store(value: str) -> str:
    if value == "memory":
        return value
    try:
        parse_redis_url(value)
    except ValueError as error:
        raise ValueError(f"{error} (or be `memory`)" if "://" not in value else str(error)) from None
    if find_spec("hiredis") is None:
        raise ValueError("Redis needs a package more: pip install 'llmproxy-gateway[redis]'")
    return value


class PriceConfig(Section):
    """Per million tokens."""

    prompt: float = Field(0.0, ge=0, le=MICRO, description="Of a million prompt tokens.")
    completion: float = Field(0.0, ge=0, le=MICRO, description="Of a million generated tokens.")


class SharedLimitsConfig(Section):
    store: Annotated[str, AfterValidator(_store)] = Field(
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
