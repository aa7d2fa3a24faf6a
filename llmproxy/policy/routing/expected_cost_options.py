"""What `expected_cost` weighs, and what it believes before anything is known."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ExpectedCostOptions:
    """The weights of the terms (see `ExpectedCost`), and what is believed before anything is known."""

    own: float = 2.0
    """Weight of this request's uncached prompt tokens beside those that wait there: to compute anew what is cached
    elsewhere takes not just time, but room in the cache from others."""
    delay: float = 0.1
    """By how much each request in flight there makes the prompt tokens to be computed dearer: they are computed the
    slower for it, and meanwhile its next token is late."""
    crowd: float = 0.02
    """Seconds that each request in flight counts for on a backend of first-guess speed."""
    alike: float = 0.05
    """Costs that exceed the least by no more than this share count as equal: they are not known any better, and an idle
    fleet is not to be one busy backend."""
    prefill_tokens_per_s: float = 10_000.0
    """First guess of a backend's prefill speed."""
    cache_tokens: int = 400_000
    """Size of a backend's KV cache until its metrics tell."""
    adapter_idle: float = 0.2
    """Seconds that it takes to fetch a LoRA adapter that a backend has, but that no request uses there."""
    adapter_missing: float = 10.0
    """Seconds that it counts for that a backend does not know the model or adapter at all, while another one does."""

    def __post_init__(self) -> None:
        if min(self.own, self.delay, self.crowd, self.alike, self.adapter_idle, self.adapter_missing) < 0:
            raise ValueError("own, delay, crowd, alike, adapter_idle and adapter_missing cannot be negative")
        if self.prefill_tokens_per_s <= 0 or self.cache_tokens < 1:
            raise ValueError("prefill_tokens_per_s and cache_tokens must be positive")
