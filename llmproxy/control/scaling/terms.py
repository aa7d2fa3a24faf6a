"""What the configuration says of replicas and of their lives."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class TierTerms:
    """What replicas of one tier of capacity are to the pool."""

    weight: float = 1.0
    price_per_hour: float = 0.0
    spot: bool = False
    max_concurrency: int | None = None
    prompt_tokens_max: int | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """What the configuration says of lives."""

    drain_s: float = 600.0
    replace_after_s: float = 60.0
    """A serving replica that has been unhealthy for so long is replaced."""
    warm_size: int = 0
    warm_by_sleep: bool = True
    prompts: tuple[dict[str, Any], ...] = ()
    """What a new one computes before it serves."""
    hottest: int = 0
    """So many of the beginnings of prompts that traffic has shown to be common, too."""
    warm_up_s: float = 60.0
    tiers: Mapping[str, TierTerms] = field(default_factory=dict)
    """By name; where there are no tiers, one without a name."""

    def of(self, tier: str) -> TierTerms:
        return self.tiers.get(tier) or TierTerms()
