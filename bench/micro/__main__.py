"""`python -m bench.micro [WORD]`."""

import sys
from timeit import Timer

from bench.micro.pieces import PIECES

_REPEATS = 5
_PIECE_S = 0.1


def best_us(timer: Timer) -> float:
    """Microseconds a call in the best of some repeats: the others were disturbed."""
    number, took_s = timer.autorange()
    number = max(1, int(number * _PIECE_S / took_s))
    return min(timer.repeat(_REPEATS, number)) / number * 1e6


def main() -> int:
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    for piece in PIECES:
        if word in piece.__name__:
            print(f"{piece.__name__:<20} {best_us(Timer(piece())):10.2f} us")
    return 0


if __name__ == "__main__":
    sys.exit(main())
