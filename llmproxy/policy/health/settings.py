"""What the configuration says of health: `health:` and `breaker:` of a pool, in seconds."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HealthSettings:
    """Defaults are the configuration's."""

    unhealthy_after: int = 3
    """Bad probes in a row that take a backend out."""
    healthy_after: int = 2
    """Good probes in a row that bring one back."""
    slow_start_s: float = 30.0
    """How long a recovered backend's weight grows; 0 is at once."""
    max_ejected_percent: int = 50
    """Most of the pool that breakers may take out; one backend always."""
    failures: int = 5
    """Failures in the window, or in a row, that open a breaker."""
    window_s: float = 30.0
    error_ratio: float = 0.5
    """Share of failures in the window that opens it as well, once there are `min_requests`."""
    min_requests: int = 20
    open_for_s: float = 10.0
    max_open_for_s: float = 120.0
    busy_for_s: float = 1.0
    """How long a backend that said it is busy, without saying for how long, is passed over."""
