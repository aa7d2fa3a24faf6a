"""round_robin, random and weighted: choices that do not look at load."""

from collections import Counter


class TestRoundRobin:
    def test_equals_take_turns(self, policy, backends, picks):
        assert picks(policy("round_robin"), backends(1, 1, 1), 6) == ["a", "b", "c", "a", "b", "c"]

    def test_heavy_ones_are_interleaved_not_served_in_bursts(self, policy, backends, picks):
        assert "".join(picks(policy("round_robin"), backends(5, 1, 1), 7)) == "aabacaa"

    def test_shares_follow_weights_exactly(self, policy, backends, picks):
        counts = Counter(picks(policy("round_robin"), backends(3, 2, 1), 600))
        assert counts == {"a": 300, "b": 200, "c": 100}

    def test_a_changed_weight_counts_from_the_next_turn(self, policy, backends, picks):
        two, turns = backends(1, 1), policy("round_robin")
        picks(turns, two, 4)
        two[1].weight = 0.1
        assert Counter(picks(turns, two, 110)) == {"a": 100, "b": 10}

    def test_a_forgotten_backend_starts_afresh(self, policy, backends):
        two, turns = backends(1, 1), policy("round_robin")
        first = turns.pick(two, None, 0.0)
        turns.forget(first)
        assert first not in turns._credit
        assert turns.pick(two, None, 0.0) is not first


class TestRandom:
    def test_ignores_weights(self, policy, backends, picks):
        counts = Counter(picks(policy("random"), backends(1, 100), 2000))
        assert 850 < counts["a"] < 1150

    def test_is_not_a_cycle(self, policy, backends, picks):
        sequence = picks(policy("random"), backends(1, 1), 64)
        assert sequence != ["a", "b"] * 32
        assert sequence != ["b", "a"] * 32


class TestWeighted:
    def test_shares_follow_weights(self, policy, backends, picks):
        counts = Counter(picks(policy("weighted"), backends(1, 3), 4000))
        assert 850 < counts["a"] < 1150

    def test_weights_of_any_size(self, policy, backends, picks):
        counts = Counter(picks(policy("weighted"), backends(1e-9, 3e-9), 4000))
        assert 850 < counts["a"] < 1150

    def test_rounding_never_runs_past_the_last(self, policy, backends):
        weighted = policy("weighted")

        class AlmostOne:
            def random(self):
                return 1.0

        weighted._rng = AlmostOne()
        many = backends(0.1, 0.2, 0.3)
        assert weighted.pick(many, None, 0.0) is many[-1]
