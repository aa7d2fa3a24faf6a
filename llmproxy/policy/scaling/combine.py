"""Many opinions, one number: the highest wanted wins, and nothing above the lowest cap that any of them sets."""

from collections.abc import Sequence

from llmproxy.policy.scaling.base import Wanted


def combine(opinions: Sequence[Wanted]) -> Wanted | None:
    """The opinion that wins; of equals the first. None when nobody has one."""
    if not opinions:
        return None
    highest = max(opinions, key=lambda one: one.replicas)
    caps = [one for one in opinions if one.cap is not None]
    lowest = min(caps, key=lambda one: one.cap or 0) if caps else None
    if lowest is not None and lowest.cap is not None and lowest.cap < highest.replicas:
        reason = f"{highest.policy} wants {highest.replicas}, but at most {lowest.cap}: {lowest.reason}"
        return Wanted(lowest.cap, reason, lowest.policy, lowest.cap, highest.for_memory, highest.need)
    return highest
