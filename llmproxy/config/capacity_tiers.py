"""`scaling.tiers_of_capacity`: the kinds of replicas a pool may have."""

import shlex
from collections.abc import Sequence

from pydantic import Field, field_validator

from llmproxy.config.quota import Count
from llmproxy.config.section import Section
from llmproxy.config.values import Name


class CapacityTierConfig(Section):
    name: Name = Field(description="Its name: a label, `{tier}` in commands, `tier` in messages to a webhook.")
    gpu: str = Field("", description="What it runs on, such as `A10` or `2xA100`: `{gpu}` in commands.")
    worth: float = Field(1.0, gt=0, le=1000, description="What one does, in replicas of worth 1; also its weight.")
    prompt_tokens_max: Count | None = Field(
        None, description="Longer prompts (by estimate) go to a larger tier only; none: it takes all."
    )
    max: int | None = Field(None, ge=1, description="Never more of it; the pool's `max` holds for all together.")
    price_per_hour: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="What one costs in an hour; by default the budget's price."
    )
    spot: bool = Field(False, description="Rented at a spot price: costs tell it apart from what is on demand.")
    max_concurrency: int | None = Field(None, ge=1, description="Instead of the pool's `scaling.max_concurrency`.")
    command: str = Field("", description="`process`: instead of the actuator's; `{tier}` and `{gpu}` are put in too.")
    gpus: tuple[str, ...] = Field((), description="`process`: its own sets of GPUs, instead of the actuator's.")
    env: dict[str, str] = Field(default_factory=dict, description="`process`: beside the actuator's.")

    @field_validator("command")
    @classmethod
    def _splits(cls, value: str) -> str:
        return engine_command(value)


def engine_command(value: str) -> str:
    """A template that can be split into words and has a place for the port; ValueError says what is wrong with it."""
    try:
        words = shlex.split(value)
    except ValueError as error:
        raise ValueError(f"it cannot be split into words: {str(error).lower()}") from None
    if value and not words:
        raise ValueError("it says nothing")
    if words and not any("{port}" in word for word in words):
        raise ValueError("{port} must be in it: each engine gets a port of its own")
    return value


def check_tiers(tiers: Sequence[CapacityTierConfig]) -> None:
    """ValueError where they do not go together: from the smallest on, and the last takes what none before it does."""
    names = [tier.name for tier in tiers]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"tiers_of_capacity: two are called {name!r}")
    longest = 0
    for tier in tiers:
        limit = tier.prompt_tokens_max
        if limit is not None and limit < longest:
            raise ValueError(f"tiers_of_capacity: {tier.name} takes shorter prompts than the one before it")
        longest = limit if limit is not None else 2**62
