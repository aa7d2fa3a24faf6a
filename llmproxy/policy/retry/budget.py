"""The retry budget of one pool: a share of its live requests may be retries."""


class Budget:
    """Implements `RetryBudget`: at once, at most `ratio` of the live requests, or `floor` if that is more."""

    __slots__ = ("_floor", "_ratio", "live", "retries")

    def __init__(self, ratio: float, floor: int) -> None:
        self.configure(ratio, floor)
        self.live = 0
        """Requests that have started and not ended, those being retried among them."""
        self.retries = 0
        """Retries out of the budget that run now."""

    def configure(self, ratio: float, floor: int) -> None:
        """New bounds after a reload; retries that run already go on."""
        self._ratio = ratio
        self._floor = floor

    def request_started(self) -> None:
        self.live += 1

    def request_ended(self) -> None:
        self.live -= 1

    def try_spend(self) -> bool:
        """Take one retry out of the budget; False when it is used up."""
        if self.retries + 1 > max(self._floor, self._ratio * self.live):
            return False
        self.retries += 1
        return True

    def give_back(self) -> None:
        """The retry taken with `try_spend` ended."""
        self.retries -= 1
