import pytest

from llmproxy.policy.retry.budget import Budget


def started(budget, count):
    for _ in range(count):
        budget.request_started()
    return budget


def spend_all(budget):
    count = 0
    while budget.try_spend():
        count += 1
    return count


@pytest.mark.parametrize(("live", "allowed"), [(0, 10), (1, 10), (50, 10), (54, 10), (55, 11), (200, 40)])
def test_a_fifth_of_the_live_requests_but_at_least_ten(live, allowed):
    assert spend_all(started(Budget(0.2, 10), live)) == allowed


def test_nothing_without_ratio_and_floor():
    assert not started(Budget(0.0, 0), 1000).try_spend()


def test_a_small_ratio_needs_enough_requests_for_one():
    budget = started(Budget(0.2, 0), 4)
    assert not budget.try_spend()
    budget.request_started()
    assert budget.try_spend()


def test_what_is_given_back_can_be_spent_again():
    budget = Budget(0.2, 1)
    assert budget.try_spend()
    assert not budget.try_spend()
    budget.give_back()
    assert budget.try_spend()


def test_it_shrinks_with_the_load():
    budget = started(Budget(0.5, 0), 10)
    assert spend_all(budget) == 5
    for _ in range(8):
        budget.request_ended()
    for _ in range(4):
        budget.give_back()
    assert not budget.try_spend()


def test_new_bounds_count_at_once():
    budget = started(Budget(0.2, 10), 100)
    assert spend_all(budget) == 20
    budget.configure(0.25, 10)
    assert spend_all(budget) == 5
    budget.configure(0.0, 0)
    assert not budget.try_spend()
