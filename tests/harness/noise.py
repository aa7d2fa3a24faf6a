"""Arrivals by the second that are not all the same, and the same each time."""

from random import Random


def noisy(rate: float, seconds: int) -> list[int]:
    """About `rate` in each second, with the deviation of Poisson arrivals."""
    rng = Random(3)
    return [max(int(rng.gauss(rate, rate**0.5) + 0.5), 0) for _ in range(seconds)]
