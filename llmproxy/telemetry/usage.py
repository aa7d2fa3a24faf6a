"""What was used, by pool, model and tenant: what the price of the machines is shared out by."""

from dataclasses import dataclass

Who = tuple[str, str, str]
"""Pool, model, tenant, as metrics label them."""


@dataclass(slots=True)
class Use:
    """All only grow."""

    requests: int = 0
    tokens: int = 0
    """Prompt and generated."""
    at_backend_s: float = 0.0
    """Time that requests spent at a backend, added up: one that generates for long costs more."""


class Usage:
    """Counted as requests end. Labels are bounded by whoever gives them."""

    def __init__(self) -> None:
        self.is_priced = False
        """Some machine has a price: only then does anybody count."""
        self.rows: dict[Who, Use] = {}

    def count(self, who: Who, tokens: int, at_backend_s: float) -> None:
        """A request that a backend worked on is over."""
        use = self.rows.get(who)
        if use is None:
            use = self.rows[who] = Use()
        use.requests += 1
        use.tokens += tokens
        use.at_backend_s += at_backend_s
