"""The circuit breaker of one backend: closed -> open -> half-open -> closed, or open again for longer."""

import random
from enum import Enum

from llmproxy.core.enums import plain
from llmproxy.policy.health.settings import HealthSettings
from llmproxy.policy.health.window import Window

NEVER = float("inf")
_LEAST_JITTER = 0.9


@plain
class State(Enum):
    """The value is the label."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """Counts outcomes while closed; while half-open only the trial's outcome counts; while open none does.

    `failed` answers whether it is time to open; the caller does it, with `open`, if the pool can spare the backend.
    """

    __slots__ = ("_failures_in_a_row", "_rng", "_settings", "_times_opened", "_window", "due", "state", "trial_out")

    def __init__(self, settings: HealthSettings, rng: random.Random) -> None:
        self._settings = settings
        self._rng = rng
        self._window = Window(settings.window_s)
        self._failures_in_a_row = 0
        self._times_opened = 0
        self.state = State.CLOSED
        self.trial_out = False
        """Whether the one request that may go there while half-open is on its way."""
        self.due = NEVER
        """When being open ends."""

    def configure(self, settings: HealthSettings, now: float) -> None:
        """New settings; what is open stays so, but no longer than they allow."""
        if settings.window_s != self._settings.window_s:
            self._window = Window(settings.window_s)
        self._settings = settings
        if self.state is State.OPEN:
            self.due = min(self.due, now + settings.max_open_for_s)

    def tick(self, now: float) -> None:
        """Let time pass: open becomes half-open."""
        if now >= self.due:
            self.state = State.HALF_OPEN
            self.due = NEVER

    def take_trial(self) -> bool:
        """A request goes there. True when it is the trial."""
        if self.state is not State.HALF_OPEN or self.trial_out:
            return False
        self.trial_out = True
        return True

    def succeeded(self, now: float, *, trial: bool) -> None:
        """A request sent there was answered."""
        if self.state is State.CLOSED:
            self._failures_in_a_row = 0
            self._window.add(now, failed=False)
        elif trial and self.trial_out:
            self._close()

    def failed(self, now: float, *, trial: bool) -> bool:
        """A request sent there failed. True when that is one too many."""
        if self.state is State.CLOSED:
            self._failures_in_a_row += 1
            self._window.add(now, failed=True)
            return self._has_had_enough()
        if trial and self.trial_out:
            self.open(now)
        return False

    def released(self, *, trial: bool) -> None:
        """A request sent there ended in a way that says nothing of the backend: the next one may be the trial."""
        if trial:
            self.trial_out = False

    def open(self, now: float) -> None:
        """No more requests, for a while that doubles each time until it closes again."""
        settings = self._settings
        # The exponent is bounded so that 2.0 to the power of it stays a number.
        wait_s = min(settings.open_for_s * 2.0 ** min(self._times_opened, 60), settings.max_open_for_s)
        self._times_opened += 1
        self.state = State.OPEN
        self.trial_out = False
        self.due = now + wait_s * self._rng.uniform(_LEAST_JITTER, 1.0)

    def _close(self) -> None:
        self.state = State.CLOSED
        self.trial_out = False
        self._times_opened = 0
        self._failures_in_a_row = 0
        self._window.clear()

    def _has_had_enough(self) -> bool:
        settings, window = self._settings, self._window
        if self._failures_in_a_row >= settings.failures or window.failures >= settings.failures:
            return True
        return window.requests >= settings.min_requests and window.failures >= settings.error_ratio * window.requests
