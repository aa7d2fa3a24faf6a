"""How much of a pool passive health may take out."""


def may_eject(ejected: int, members: int, max_percent: int) -> bool:
    """Whether one more of `members` may be ejected when `ejected` are.

    One always may: in a pool of two, 10 % would otherwise keep a dead backend in for good.
    """
    return ejected < max(1, members * max_percent // 100)
