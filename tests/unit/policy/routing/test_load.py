"""least_connections and power_of_two: choices by requests in flight."""

from collections import Counter


def place(policy, candidates, count):
    """`count` requests at once: each stays in flight."""
    for _ in range(count):
        policy.pick(candidates, None, 0.0).load.enter()
    return [backend.load.in_flight for backend in candidates]


class TestLeastConnections:
    def test_twenty_at_once_spread_evenly_over_two(self, policy, backends):
        assert place(policy("least_connections"), backends(1, 1), 20) == [10, 10]

    def test_in_flight_follows_weight(self, policy, backends):
        assert place(policy("least_connections"), backends(3, 1), 20) == [15, 5]

    def test_what_counts_is_in_flight_for_the_weight(self, policy, backends):
        light, heavy = backends(1, 3)
        heavy.load.enter()
        assert policy("least_connections").pick([light, heavy], None, 0.0) is light
        light.load.enter()
        assert policy("least_connections").pick([light, heavy], None, 0.0) is heavy

    def test_equals_take_turns_by_weight(self, policy, backends, picks):
        least = policy("least_connections")
        two = backends(3, 1)
        assert Counter(picks(least, two, 40)) == {"a": 30, "b": 10}
        for backend, count in zip(two, (3, 1), strict=True):
            for _ in range(count):
                backend.load.enter()
        assert Counter(picks(least, two, 40)) == {"a": 30, "b": 10}
        least.forget(two[0])
        assert not [one for one in least._turns._credit if one is two[0]]

    def test_idle_equals_take_turns(self, policy, backends, picks):
        counts = Counter(picks(policy("least_connections"), backends(1, 1, 1), 30))
        assert counts == {"a": 10, "b": 10, "c": 10}

    def test_a_finished_request_makes_room(self, policy, backends):
        two, least = backends(1, 1), policy("least_connections")
        place(least, two, 6)
        two[1].load.leave()
        assert least.pick(two, None, 0.0) is two[1]

    def test_a_slow_starting_backend_gets_little_at_first(self, policy, backends):
        two = backends(1, 1)
        two[1].weight = 0.1
        assert place(policy("least_connections"), two, 9) == [8, 1]


class TestPowerOfTwo:
    def test_never_picks_the_busiest_of_three(self, policy, backends, picks):
        three = backends(1, 1, 1)
        for _ in range(5):
            three[1].load.enter()
        assert "b" not in picks(policy("power_of_two"), three, 200)

    def test_weight_counts(self, policy, backends, picks):
        assert set(picks(policy("power_of_two"), backends(1, 2), 50)) == {"b"}

    def test_every_pair_is_drawn(self, policy, backends, picks):
        four = backends(1, 1, 1, 1)
        counts = Counter(picks(policy("power_of_two"), four, 4000))
        assert all(850 < count < 1150 for count in counts.values())
        assert len(counts) == 4

    def test_stays_nearly_even(self, policy, backends):
        loads = place(policy("power_of_two"), backends(*[1] * 16), 1600)
        assert max(loads) - min(loads) <= 6
