"""What each tenant had, under a bounded number of names: tenants may come from tokens, and clients are many."""

from collections import defaultdict

TENANTS_MAX = 200
OTHER = "other"
ANONYMOUS = "anonymous"
"""All who were let in without a key, whatever their addresses."""


class Tenants:
    """Counts by tenant, labels in the table's order. The first `most` names are labels, all others are `other`."""

    def __init__(self, most: int = TENANTS_MAX) -> None:
        self._most = most
        self._names: set[str] = set()
        self.requests: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.tokens: defaultdict[tuple[str, str], int] = defaultdict(int)

    def count(self, tenant: str, status: int, prompt: int, completion: int) -> None:
        """A request is over."""
        label = self.label(tenant)
        self.requests[label, str(status)] += 1
        if prompt:
            self.tokens[label, "prompt"] += prompt
        if completion:
            self.tokens[label, "completion"] += completion

    def label(self, tenant: str) -> str:
        """What it is counted under."""
        if tenant in self._names:
            return tenant
        if len(self._names) >= self._most:
            return OTHER
        self._names.add(tenant)
        return tenant
