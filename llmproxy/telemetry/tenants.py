"""What each tenant had, under a bounded number of names: tenants may come from tokens, and clients are many."""

TENANTS_MAX = 200
OTHER = "other"
ANONYMOUS = "anonymous"
"""All who were let in without a key, whatever their addresses."""


class Tenant:
    """One label's counts."""

    __slots__ = ("completion_tokens", "label", "prompt_tokens", "statuses")

    def __init__(self, label: str) -> None:
        self.label = label
        self.statuses: dict[int, int] = {}
        self.prompt_tokens = 0
        self.completion_tokens = 0


class Tenants:
    """Counts by tenant. The first `most` names are labels, all others are `other`."""

    def __init__(self, most: int = TENANTS_MAX) -> None:
        self._most = most
        self._known: dict[str, Tenant] = {}
        self._other = Tenant(OTHER)

    def count(self, name: str, status: int, prompt: int, completion: int) -> None:
        """A request is over."""
        tenant = self._of(name)
        tenant.statuses[status] = tenant.statuses.get(status, 0) + 1
        tenant.prompt_tokens += prompt
        tenant.completion_tokens += completion

    def label(self, name: str) -> str:
        """What it is counted under."""
        return self._of(name).label

    @property
    def requests(self) -> dict[tuple[str, int], int]:
        """By label and status."""
        return {(one.label, status): count for one in self._all() for status, count in one.statuses.copy().items()}

    @property
    def tokens(self) -> dict[tuple[str, str], int]:
        """By label and `prompt` or `completion`."""
        found: dict[tuple[str, str], int] = {}
        for one in self._all():
            if one.prompt_tokens:
                found[one.label, "prompt"] = one.prompt_tokens
            if one.completion_tokens:
                found[one.label, "completion"] = one.completion_tokens
        return found

    def _of(self, name: str) -> Tenant:
        tenant = self._known.get(name)
        if tenant is not None:
            return tenant
        if len(self._known) >= self._most:
            return self._other
        tenant = self._known[name] = self._other if name == OTHER else Tenant(name)
        return tenant

    def _all(self) -> list[Tenant]:
        """Each once. Whoever asks may be on another thread."""
        return [*(one for one in list(self._known.values()) if one is not self._other), self._other]
