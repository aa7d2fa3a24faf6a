"""Many opinions, one number: the highest wanted wins, and nothing above the lowest cap that any of them sets.

Where there are none but floors (an event, a prewarm), what is there stays: "at least two" is no wish for two.
"""

from collections.abc import Sequence
from dataclasses import replace

from llmproxy.policy.scaling.base import Wanted


def combine(opinions: Sequence[Wanted], actual: int = 0) -> Wanted | None:
    """The opinion that wins; of equals the first. None when nobody has one. `actual`: replicas ready and starting."""
    if not opinions:
        return None
    highest = max(opinions, key=lambda one: one.replicas)
    if highest.replicas < actual and all(one.is_floor for one in opinions):
        reason = f"{highest.reason}; there are {actual}, and nobody says that fewer will do"
        highest = replace(highest, replicas=actual, reason=reason)
    caps = [one for one in opinions if one.cap is not None]
    lowest = min(caps, key=lambda one: one.cap or 0) if caps else None
    if lowest is not None and lowest.cap is not None and lowest.cap < highest.replicas:
        reason = f"{highest.policy} wants {highest.replicas}, but at most {lowest.cap}: {lowest.reason}"
        return Wanted(lowest.cap, reason, lowest.policy, lowest.cap, highest.for_memory, highest.need)
    return highest
