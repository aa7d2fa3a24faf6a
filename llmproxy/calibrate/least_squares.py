"""Least squares with factors that cannot be negative."""

from collections.abc import Sequence
from itertools import combinations

Row = Sequence[float]

_SINGULAR = 1e-12


def solve(rows: Sequence[Row], values: Sequence[float]) -> list[float]:
    """The factors, none negative, whose products with `rows` come closest to `values` (all above 0), by the sum of the
    squares of the relative errors. A factor that the rows do not determine is 0.

    With a few unknowns all choices of those that are not 0 can be tried, so that is what is done: the best of them
    whose plain least squares come out positive is the answer.
    """
    count = len(rows[0])
    scaled = [[cell / value for cell in row] for row, value in zip(rows, values, strict=True)]
    largest = [max(abs(row[column]) for row in scaled) for column in range(count)]
    used = [column for column in range(count) if largest[column]]
    # Columns alike in size, so that "singular" means the same for all of them.
    scaled = [[row[column] / largest[column] for column in used] for row in scaled]
    products = [[sum(row[i] * row[j] for row in scaled) for j in range(len(used))] for i in range(len(used))]
    sums = [sum(row[i] for row in scaled) for i in range(len(used))]
    best, best_gain = [0.0] * count, 0.0
    for size in range(1, len(used) + 1):
        for chosen in combinations(range(len(used)), size):
            found = _linear([[products[i][j] for j in chosen] for i in chosen], [sums[i] for i in chosen])
            if found is None or min(found) < 0:
                continue
            # What the squares have become less by, since all of them were 1.
            gain = sum(factor * sums[i] for factor, i in zip(found, chosen, strict=True))
            if gain > best_gain * (1 + 1e-12):
                best, best_gain = [0.0] * count, gain
                for factor, i in zip(found, chosen, strict=True):
                    best[used[i]] = factor / largest[used[i]]
    return best


def errors(rows: Sequence[Row], values: Sequence[float], factors: Sequence[float]) -> list[float]:
    """For each row, by what share of its value the factors miss it."""
    return [
        sum(cell * factor for cell, factor in zip(row, factors, strict=True)) / value - 1
        for row, value in zip(rows, values, strict=True)
    ]


def _linear(matrix: list[list[float]], right: list[float]) -> list[float] | None:
    """Gaussian elimination with pivots; None when the matrix is singular. Both arguments are used up."""
    count = len(right)
    for column in range(count):
        pivot = max(range(column, count), key=lambda row: abs(matrix[row][column]))
        if abs(matrix[pivot][column]) < _SINGULAR * count:
            return None
        matrix[column], matrix[pivot] = matrix[pivot], matrix[column]
        right[column], right[pivot] = right[pivot], right[column]
        for row in range(column + 1, count):
            share = matrix[row][column] / matrix[column][column]
            if share:
                for at in range(column, count):
                    matrix[row][at] -= share * matrix[column][at]
                right[row] -= share * right[column]
    found = [0.0] * count
    for row in range(count - 1, -1, -1):
        rest = right[row] - sum(matrix[row][at] * found[at] for at in range(row + 1, count))
        found[row] = rest / matrix[row][row]
    return found
