"""How requests are held, ordered and shed."""

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from llmproxy.config.section import Section
from llmproxy.config.units import GIB, Duration, Ratio, Size
from llmproxy.config.values import Name
from llmproxy.core.condition import parse_condition

_LANES_MAX = 16
_HEARTBEAT_LEAST_S = 0.1


def _condition(text: str) -> str:
    parse_condition(text)
    return text


class QueueConfig(Section):
    max: int = Field(1000, ge=0, description="Most requests waiting for a place.")
    wait: Duration = Field(30.0, description="Longest wait; then 503 with Retry-After.")
    heartbeat: Duration = Field(
        0.0,
        description="A stream that waits for its first token gets a comment so often (`: queued position=3 eta=2s`), "
        "behind a head with status 200: what fails later is told by an error event. Then `timeouts.commit_after` does "
        "not count for it. 0: none.",
    )
    bytes: Size = Field(GIB, description="Most bytes of the bodies of those who wait.")
    tenant_max: int = Field(1000, ge=0, description="Most requests of one tenant waiting, in each priority.")
    tenant_bytes: Size = Field(GIB, description="Most bytes of one tenant's waiting bodies.")
    tenant_share: Ratio = Field(
        0.0,
        ge=0,
        description="Of the backends, on how many the prompts of one tenant may be computed at once while there are "
        "other tenants (one may always), so that a tenant's flood leaves places that others need not wait for. 0: on "
        "what others left free lately, and with `expected_cost` only, as no other policy knows how long prompts "
        "take. 100%: no bound.",
    )
    min_share: Ratio = Field(
        0.05,
        le=0.25,
        description="While a better priority is served, each worse one in which someone waits gets this share beside "
        "it, so that nobody starves.",
    )

    @model_validator(mode="after")
    def _not_faster_than_time_is_looked_at(self) -> "QueueConfig":
        if 0 < self.heartbeat < _HEARTBEAT_LEAST_S:
            raise ValueError("heartbeat: nothing is sent more often than every 100ms; 0 sends none")
        return self


class SloConfig(Section):
    ttft: Duration = Field(
        0.0,
        description="First tokens are due so long after the request came: who cannot make it is shed at once, nearest "
        "due go first. `X-Request-Timeout` can shorten it. 0: never due.",
    )
    ttft_scaled: float = Field(
        0.0,
        ge=0,
        le=100,
        description="Or this many times what the prompt takes alone, where that is longer than `ttft`.",
    )
    tpot: Duration = Field(
        0.0,
        description="Mean time per further token to be kept: a backend computes prompts for no more of its time than "
        "leaves it. 0: no objective.",
    )

    @model_validator(mode="after")
    def _scaled_needs_a_base(self) -> "SloConfig":
        if self.ttft_scaled and not self.ttft:
            raise ValueError("ttft_scaled says how far ttft is stretched for long prompts: give ttft too")
        return self


class LaneConfig(Section):
    name: Name = Field(description="Its name, in metrics and in the queue's report.")
    when: Annotated[str, AfterValidator(_condition)] = Field(
        description='Which requests: `prompt_tokens > 16k`, `body_bytes >= 1m`; several joined by "and".'
    )
    max_share: Ratio = Field(
        gt=0, description="Most of the pool's backends that may compute such prompts at once; one always may."
    )


class AdaptiveConfig(Section):
    enabled: bool = Field(False, description="Learn from times to first tokens how many requests at once do good.")
    min: int = Field(4, ge=1, description="Never fewer on a backend.")
    start: int = Field(16, ge=1, description="What is tried first.")
    max: int = Field(512, ge=1, description="Never more.")
    tolerance: float = Field(
        2.0,
        gt=1,
        le=100,
        description="A first token is late at so many times the best for prompts of its size.",
    )

    @model_validator(mode="after")
    def _in_order(self) -> "AdaptiveConfig":
        if not self.min <= self.start <= self.max:
            raise ValueError("min, start and max must be in this order")
        return self


class HedgeConfig(Section):
    budget: Ratio = Field(
        0.0,
        description="Of all requests, how many may get a second attempt elsewhere because their first token is later "
        "than 95 % of them; the quicker one answers. Streams only, never while anybody waits. 0: none.",
    )
    least: Duration = Field(0.05, gt=0, description="Never sooner than this after the first was sent.")


class AdmissionConfig(Section):
    backlog: Duration = Field(
        0.3,
        description="With a policy that knows (`expected_cost`), a streamed request is sent only to a backend whose "
        "waiting prompts are less than this much work; the others wait here. 0 sends at once.",
    )
    slo: SloConfig = Field(SloConfig(), description="What answers are to keep; shedding is by this.")
    lanes: tuple[LaneConfig, ...] = Field(
        (), description="Kinds of requests kept to a share of the backends; the first that fits."
    )
    adaptive: AdaptiveConfig = Field(AdaptiveConfig(), description="Concurrency limits for engines nobody sized.")

    @model_validator(mode="after")
    def _lanes_differ(self) -> "AdmissionConfig":
        names = [lane.name for lane in self.lanes]
        if len(names) > _LANES_MAX:
            raise ValueError(f"{len(names)} lanes are more than {_LANES_MAX}")
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two lanes are called {name!r}")
        return self
