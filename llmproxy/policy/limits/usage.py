"""What each tenant used, as far as this process knows: for the admin API and for metrics. Bounded in tenants."""

from collections import OrderedDict
from dataclasses import dataclass

from llmproxy.core.limits import MICRO

TENANTS_MAX = 1000


@dataclass(slots=True)
class Usage:
    """Since the process began, or since the tenant was last forgotten."""

    tier: str
    passed: int = 0
    refused: int = 0
    in_flight: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_micro: int = 0


class UsageTable:
    """By tenant; of more than `tenants_max`, those least recently seen are forgotten."""

    def __init__(self, tenants_max: int = TENANTS_MAX) -> None:
        self._tenants_max = tenants_max
        self._known: OrderedDict[str, Usage] = OrderedDict()

    def of(self, tenant: str, tier: str) -> Usage:
        """What to count a request of `tenant` in."""
        known = self._known
        usage = known.get(tenant)
        if usage is None:
            usage = known[tenant] = Usage(tier)
            if len(known) > self._tenants_max:
                known.popitem(last=False)
        else:
            known.move_to_end(tenant)
            usage.tier = tier
        return usage

    def get(self, tenant: str) -> Usage | None:
        return self._known.get(tenant)

    def view(self) -> dict[str, dict[str, float | str]]:
        """By tenant, for `GET /admin/tenants`."""
        return {tenant: usage_view(usage) for tenant, usage in self._known.items()}


def usage_view(usage: Usage) -> dict[str, float | str]:
    """One tenant's, as JSON."""
    return {
        "tier": usage.tier,
        "requests_passed": usage.passed,
        "requests_refused": usage.refused,
        "in_flight": usage.in_flight,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cost": usage.cost_micro / MICRO,
    }
