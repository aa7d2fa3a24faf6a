"""What each tenant used, as far as this process knows: for the admin API and for metrics. Bounded in tenants."""

from collections import OrderedDict

from llmproxy.core.limits import MICRO
from llmproxy.policy.limits.recent import Remembered, make_room

TENANTS_MAX = 1000


class Usage(Remembered):
    """Since the process began, or since the tenant was last forgotten."""

    __slots__ = ("completion_tokens", "cost_micro", "in_flight", "passed", "prompt_tokens", "refused", "tier")

    def __init__(self, tier: str) -> None:
        super().__init__()
        self.tier = tier
        self.passed = 0
        self.refused = 0
        self.in_flight = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.cost_micro = 0


class UsageTable:
    """By tenant; of more than `tenants_max`, those not seen for longest are forgotten."""

    def __init__(self, tenants_max: int = TENANTS_MAX) -> None:
        self._tenants_max = tenants_max
        self._known: OrderedDict[str, Usage] = OrderedDict()

    def of(self, tenant: str, tier: str) -> Usage:
        """What to count the requests of `tenant` in, until it is forgotten."""
        usage = self._known.get(tenant)
        if usage is None:
            make_room(self._known, self._tenants_max)
            usage = self._known[tenant] = Usage(tier)
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
