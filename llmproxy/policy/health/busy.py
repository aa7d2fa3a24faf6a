"""A backend that said it is full is passed over for a moment."""

_LONGEST_S = 5.0


def busy_until(now: float, retry_after_s: float | None, default_s: float) -> float:
    """Until when. Its own Retry-After counts, but not for long: the next stream that ends there frees a place."""
    return now + min(default_s if retry_after_s is None else max(retry_after_s, 0.0), _LONGEST_S)
