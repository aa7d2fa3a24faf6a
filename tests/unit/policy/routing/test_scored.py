"""A sum of scores: the highest wins, and it says so."""

import pytest

from llmproxy.core.request import Request


def test_the_highest_score_or_one_of_the_equals(policy, backends):
    two, made = backends(1, 1), policy("scored")
    asked = Request()
    assert {made.pick(two, asked, 0.0) for _ in range(50)} == set(two)
    assert asked.reason == "tie"
    two[0].load.enter()
    assert made.pick(two, asked, 0.0) is two[1]
    assert asked.reason == "score"


def test_weights_choose_the_scorers(policy, backends):
    [one] = backends(1)
    [told] = policy("scored", prefix=0, queue=2, kv=0, adapter=1).explain([one], Request(), 0.0)
    assert told == {"score": 3.0, "queue": 2.0, "adapter": 1.0}
    with pytest.raises(ValueError, match="negative"):
        policy("scored", adapter=-1)
