import pytest

from llmproxy.core.backend import Backend, BackendSpec, Status
from llmproxy.core.outcome import Outcome
from llmproxy.core.ports import ProbeResult
from llmproxy.policy.health.breaker import State
from llmproxy.policy.health.settings import HealthSettings


class TestMembership:
    def test_newcomers_get_nothing_until_their_first_success(self, pool):
        three = pool(3)
        assert three.candidates == []
        three.probe(ProbeResult.OK, 1)
        assert three.candidates == ["b1"]
        three.probe(ProbeResult.OK)
        assert three.candidates == ["b0", "b1", "b2"]

    def test_what_is_known_of_those_who_stay_is_kept(self, pool):
        three = pool(3).up()
        three.kill(0)
        three.health.drain(three.members[1], three.clock())
        newcomer = Backend(BackendSpec(id="b3", url="http://10.0.0.3:8000"))
        three.health.set_members([newcomer, *three.members], three.clock())
        assert [b.status.value for b in (newcomer, *three.members)] == ["new", "open", "draining", "healthy"]
        assert three.candidates == ["b2"]

    def test_candidates_are_in_the_pool_s_order(self, pool):
        three = pool(3).up()
        three.health.set_members(three.members[::-1], three.clock())
        assert three.candidates == ["b2", "b1", "b0"]

    def test_leavers_drain_and_what_comes_of_them_is_of_no_interest(self, pool):
        two = pool(2).up()
        gone = two.members[1]
        two.health.set_members(two.members[:1], two.clock())
        assert gone.status is Status.DRAINING
        assert two.status(1) == "draining"
        two.kill(1)
        two.probe(ProbeResult.OK, 1)
        two.health.drain(gone, two.clock())
        two.health.undrain(gone, two.clock())
        assert gone.status is Status.DRAINING
        assert two.health.breaker(gone, two.clock()) is State.CLOSED
        assert two.candidates == ["b0"]

    def test_a_changed_weight_counts(self, pool):
        one = pool(1).up()
        one.members[0].spec = BackendSpec(id="b0", url="http://10.0.0.0:8000", weight=7.0)
        one.health.set_members(one.members, one.clock())
        assert one.members[0].weight == 7.0


class TestPassive:
    @pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome.is_failure])
    def test_out_within_five_failures_of_any_kind(self, pool, outcome):
        two = pool(2).up()
        two.send(0, outcome, times=4)
        assert two.candidates == ["b0", "b1"]
        two.send(0, outcome)
        assert two.candidates == ["b1"]
        assert two.status(0) == "open"

    @pytest.mark.parametrize("outcome", [Outcome.OK, Outcome.BUSY, Outcome.ABANDONED, Outcome.DEADLINE])
    def test_what_is_no_failure_never_ejects(self, pool, outcome):
        two = pool(2).up()
        two.send(0, outcome, times=100)
        assert two.status(0) == "healthy"

    def test_the_cap_keeps_the_rest_in(self, pool):
        four = pool(4, max_ejected_percent=50).up()
        for index in range(4):
            four.kill(index)
        assert [four.status(index) for index in range(4)] == ["open", "open", "healthy", "healthy"]

    def test_one_held_in_by_the_cap_goes_when_another_is_back(self, pool):
        two = pool(2).up()
        two.kill(0)
        two.kill(1)
        assert two.candidates == ["b1"]
        two.clock.advance(10.0)
        assert two.candidates == ["b0", "b1"]
        two.send(0, Outcome.OK)
        two.send(1, Outcome.REFUSED)
        assert two.candidates == ["b0"]

    def test_one_at_a_time_when_half_open(self, pool):
        two = pool(2).up()
        two.kill(0)
        two.clock.advance(10.0)
        assert (two.candidates, two.status(0)) == (["b0", "b1"], "half_open")
        assert two.health.chosen(two.members[0], two.clock())
        assert two.candidates == ["b1"]
        assert not two.health.chosen(two.members[0], two.clock())
        two.health.observe(two.members[0], Outcome.OK, two.clock(), trial=True)
        assert (two.candidates, two.status(0)) == (["b0", "b1"], "healthy")

    @pytest.mark.parametrize("outcome", [Outcome.ABANDONED, Outcome.DEADLINE])
    def test_a_trial_whose_client_left_is_given_back(self, pool, outcome):
        two = pool(2).up()
        two.kill(0)
        two.clock.advance(10.0)
        assert two.send(0, outcome)
        assert (two.candidates, two.status(0)) == (["b0", "b1"], "half_open")
        assert two.send(0, Outcome.OK)
        assert two.status(0) == "healthy"

    def test_streams_from_before_do_not_decide_a_trial(self, pool):
        two = pool(2).up()
        old = [two.health.chosen(two.members[0], two.clock()) for _ in range(2)]
        two.kill(0)
        two.clock.advance(10.0)
        assert two.candidates == ["b0", "b1"]
        assert two.health.chosen(two.members[0], two.clock())
        two.health.observe(two.members[0], Outcome.OK, two.clock(), trial=old[0])
        two.health.observe(two.members[0], Outcome.CUT, two.clock(), trial=old[1])
        assert two.status(0) == "half_open"
        assert two.candidates == ["b1"]

    @pytest.mark.parametrize(
        ("outcome", "status"), [(Outcome.OK, "healthy"), (Outcome.RESET, "open"), (Outcome.ABANDONED, "half_open")]
    )
    def test_callers_that_do_not_say_give_the_first_outcome_as_the_trial_s(self, pool, outcome, status):
        two = pool(2).up()
        two.kill(0)
        two.clock.advance(10.0)
        assert two.candidates == ["b0", "b1"]
        two.health.chosen(two.members[0], two.clock())
        two.health.observe(two.members[0], outcome, two.clock())
        assert two.status(0) == status

    def test_good_probes_do_not_close_the_breaker(self, pool):
        two = pool(2).up()
        two.kill(0)
        two.probe(ProbeResult.OK, 0, times=5)
        assert two.status(0) == "open"

    def test_time_alone_brings_the_trial(self, pool):
        two = pool(2).up()
        two.kill(0)
        two.clock.advance(8.9)
        assert two.candidates == ["b1"]
        two.clock.advance(1.1)
        assert two.candidates == ["b0", "b1"]


class TestStatus:
    def test_probes_hide_the_breaker_and_draining_hides_both(self, pool):
        two = pool(2).up()
        two.kill(0)
        two.probe(ProbeResult.FAILED, 0, times=3)
        assert two.status(0) == "unhealthy"
        assert two.health.breaker(two.members[0], two.clock()) is State.OPEN
        two.health.drain(two.members[0], two.clock())
        assert two.status(0) == "draining"
        two.health.undrain(two.members[0], two.clock())
        assert two.status(0) == "unhealthy"

    def test_status_is_what_the_time_says_without_any_request(self, pool):
        two = pool(2).up()
        two.kill(0)
        two.clock.advance(10.0)
        assert two.health.breaker(two.members[0], two.clock()) is State.HALF_OPEN
        assert two.status(0) == "half_open"

    def test_draining_gets_nothing_and_comes_back_at_full_weight(self, pool):
        two = pool(2).up()
        two.health.drain(two.members[0], two.clock())
        assert two.candidates == ["b1"]
        two.health.undrain(two.members[0], two.clock())
        assert two.candidates == ["b0", "b1"]
        assert two.members[0].weight == 1.0

    def test_every_change_is_told_once(self, pool):
        two = pool(2)
        two.probe(ProbeResult.REFUSED, 0)
        two.probe(ProbeResult.REFUSED, 0)
        two.probe(ProbeResult.OK, 0)
        two.kill(0)
        two.clock.advance(10.0)
        two.status(0)
        two.status(0)
        two.send(0, Outcome.OK)
        assert two.changes == [
            ("b0", "new", "loading"),
            ("b0", "loading", "healthy"),
            ("b0", "healthy", "open"),
            ("b0", "open", "half_open"),
            ("b0", "half_open", "healthy"),
        ]
        assert two.reasons == [
            "probe: refused",
            "probe: ok",
            "too many failures, the last one: refused",
            "its time out is over",
            "the trial ended: ok",
        ]

    def test_the_reason_is_that_of_the_one_who_changed(self, pool):
        two = pool(2).up()
        two.kill(0)
        two.clock.advance(10.0)
        # Time ran out for one of them unseen; what is noticed first is the other's probe.
        two.health.probed(two.members[1], ProbeResult.SLEEPING, two.clock(), "asleep or paused")
        two.send(0, Outcome.RESET)
        two.health.drain(two.members[0], two.clock())
        two.health.undrain(two.members[0], two.clock())
        assert list(zip(two.changes, two.reasons, strict=True)) == [
            (("b0", "healthy", "open"), "too many failures, the last one: refused"),
            (("b0", "open", "half_open"), "its time out is over"),
            (("b1", "healthy", "sleeping"), "probe: asleep or paused"),
            (("b0", "half_open", "open"), "the trial ended: reset"),
            (("b0", "open", "draining"), "drained"),
            (("b0", "draining", "open"), "no longer drained"),
        ]

    def test_whoever_is_told_may_ask_back(self, pool):
        two = pool(2).up()
        seen = []
        two.health.on_change = lambda backend, before, after, why: seen.append(two.candidates)
        two.kill(0)
        assert seen == [["b1"]]


class TestPanic:
    def test_one_backend_alone_is_tried_anyway(self, pool):
        one = pool(1).up()
        one.kill(0)
        assert (one.status(0), one.candidates) == ("open", ["b0"])

    def test_all_unhealthy_are_tried_anyway(self, pool):
        two = pool(2).up()
        two.probe(ProbeResult.FAILED, times=3)
        assert two.candidates == ["b0", "b1"]

    def test_not_while_anyone_is_eligible(self, pool):
        three = pool(3).up()
        three.kill(0)
        three.probe(ProbeResult.FAILED, 1, times=3)
        assert three.candidates == ["b2"]
        three.health.drain(three.members[2], three.clock())
        assert three.candidates == ["b0", "b1"]

    def test_never_onto_loading_sleeping_draining_or_new_ones(self, pool):
        many = pool(6)
        many.probe(ProbeResult.OK, 0, 1, 2)
        many.probe(ProbeResult.SLEEPING, 0)
        many.health.drain(many.members[1], many.clock())
        many.probe(ProbeResult.LOADING, 2, times=3)
        many.probe(ProbeResult.REFUSED, 3)
        many.probe(ProbeResult.FAILED, 4, times=9)
        assert [many.status(i) for i in range(6)] == ["sleeping", "draining", "loading", "loading", "unhealthy", "new"]
        assert many.candidates == []

    def test_the_trial_decides_not_what_was_sent_in_panic(self, pool):
        one = pool(1).up()
        one.kill(0)
        one.send(0, Outcome.OK, times=10)
        assert one.status(0) == "open"
        one.send(0, Outcome.REFUSED, times=10)
        one.clock.advance(10.0)
        assert one.status(0) == "half_open"
        assert one.health.chosen(one.members[0], one.clock())
        assert one.candidates == ["b0"], "its trial is out, and there is nobody else"
        assert not one.send(0, Outcome.OK)
        assert one.status(0) == "half_open"
        one.health.observe(one.members[0], Outcome.OK, one.clock(), trial=True)
        assert one.status(0) == "healthy"

    def test_the_one_that_may_be_well_goes_first(self, pool):
        two = pool(2, max_ejected_percent=100).up()
        two.kill(0)
        two.clock.advance(5.0)
        two.kill(1)
        assert two.candidates == ["b0", "b1"]
        two.clock.advance(5.0)
        assert two.candidates == ["b0"]


class TestSlowStart:
    def test_weight_grows_after_a_trial_went_well(self, pool):
        two = pool(2, slow_start_s=30.0).up()
        two.kill(0)
        two.clock.advance(10.0)
        two.status(0)
        two.send(0, Outcome.OK)
        weights = []
        for _ in range(11):
            two.status(0)
            weights.append(two.members[0].weight)
            two.clock.advance(3.0)
        assert weights == [0.1, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
        assert two.members[1].weight == 1.0

    def test_and_after_probes_brought_it_back(self, pool):
        two = pool(2).up()
        two.probe(ProbeResult.REFUSED, 0, times=3)
        two.probe(ProbeResult.OK, 0, times=2)
        assert (two.status(0), two.members[0].weight) == ("healthy", 0.1)

    def test_a_newcomer_has_its_weight_at_once(self, pool):
        assert pool(1).up().members[0].weight == 1.0

    def test_waking_up_is_no_recovery(self, pool):
        one = pool(1).up()
        one.probe(ProbeResult.SLEEPING)
        one.probe(ProbeResult.OK)
        assert one.members[0].weight == 1.0

    def test_a_relapse_starts_over(self, pool):
        two = pool(2).up()
        two.probe(ProbeResult.REFUSED, 0, times=3)
        two.probe(ProbeResult.OK, 0, times=2)
        two.clock.advance(15.0)
        two.probe(ProbeResult.REFUSED, 0, times=3)
        assert two.members[0].weight == 1.0, "in panic it counts as much as the others"
        two.probe(ProbeResult.OK, 0, times=2)
        assert two.members[0].weight == 0.1

    def test_it_begins_when_it_gets_work_again(self, pool):
        two = pool(2).up()
        two.probe(ProbeResult.REFUSED, 0, times=3)
        two.health.drain(two.members[0], two.clock())
        two.probe(ProbeResult.OK, 0, times=2)
        two.clock.advance(60.0)
        two.health.undrain(two.members[0], two.clock())
        assert two.members[0].weight == 0.1


class TestBusy:
    def test_passed_over_for_a_moment(self, pool):
        two = pool(2).up()
        two.send(0, Outcome.BUSY)
        assert (two.candidates, two.status(0)) == (["b1"], "healthy")
        two.clock.advance(0.99)
        assert two.candidates == ["b1"]
        two.clock.advance(0.01)
        assert two.candidates == ["b0", "b1"]

    def test_for_as_long_as_it_asked_but_not_longer_than_five_seconds(self, pool):
        two = pool(2).up()
        two.send(0, Outcome.BUSY, retry_after_s=600.0)
        two.clock.advance(4.9)
        assert two.candidates == ["b1"]
        two.clock.advance(0.1)
        assert two.candidates == ["b0", "b1"]

    def test_not_when_all_are(self, pool):
        two = pool(2).up()
        two.send(0, Outcome.BUSY)
        two.send(1, Outcome.BUSY)
        assert two.candidates == ["b0", "b1"]


class TestConfigure:
    def test_counts_and_states_stay(self, pool):
        two = pool(2).up()
        two.kill(0)
        two.send(1, Outcome.RESET, times=2)
        two.health.configure(HealthSettings(failures=3, max_ejected_percent=100), two.clock())
        assert two.status(0) == "open"
        two.send(1, Outcome.RESET)
        assert two.status(1) == "open"

    def test_new_probe_counts(self, pool):
        two = pool(2).up()
        two.health.configure(HealthSettings(unhealthy_after=1), two.clock())
        two.probe(ProbeResult.FAILED, 0)
        assert two.status(0) == "unhealthy"


class TestCache:
    def test_the_very_same_tuple_while_nothing_happens(self, pool):
        two = pool(2).up()
        first = two.health.candidates(two.clock())
        for _ in range(100):
            two.clock.advance(100.0)
            two.send(0, Outcome.OK)
            assert two.health.candidates(two.clock()) is first

    def test_nothing_due_leads_to_no_work(self, pool):
        two = pool(2).up()
        two.kill(0)
        two.candidates  # noqa: B018
        two.health._refresh = None  # would raise when called
        two.clock.advance(8.0)
        assert two.candidates == ["b1"]


class TestProgress:
    def test_one_that_hangs_is_out_at_once_and_back_at_once(self, pool):
        two = pool(2).up()
        two.health.hung(two.members[0], True, two.clock())
        assert (two.status(0), two.candidates) == ("unhealthy", ["b1"])
        two.probe(ProbeResult.OK, 0, times=5)
        assert two.candidates == ["b1"], "its /health is fine all the while"
        two.health.hung(two.members[0], False, two.clock())
        assert (two.status(0), two.candidates) == ("healthy", ["b0", "b1"])
        assert two.changes == [("b0", "healthy", "unhealthy"), ("b0", "unhealthy", "healthy")]

    def test_it_comes_back_slowly(self, pool):
        two = pool(2, slow_start_s=30.0).up()
        two.health.hung(two.members[0], True, two.clock())
        two.health.hung(two.members[0], False, two.clock())
        assert two.members[0].weight == pytest.approx(0.1)
        two.clock.advance(31)
        assert two.candidates == ["b0", "b1"]
        assert two.members[0].weight == 1.0

    def test_when_all_hang_they_are_tried(self, pool):
        two = pool(2).up()
        for member in two.members:
            two.health.hung(member, True, two.clock())
        assert two.candidates == ["b0", "b1"]

    def test_what_weighs_more_shows(self, pool):
        two = pool(2).up()
        two.health.hung(two.members[0], True, two.clock())
        two.probe(ProbeResult.SLEEPING, 0)
        assert two.status(0) == "sleeping"
        two.probe(ProbeResult.OK, 0)
        assert two.status(0) == "unhealthy"
        two.health.drain(two.members[0], two.clock())
        assert two.status(0) == "draining"

    def test_strangers_are_of_no_interest(self, pool):
        two = pool(2).up()
        two.health.hung(Backend(BackendSpec(id="x", url="http://x")), True, two.clock())
        assert two.candidates == ["b0", "b1"]
