"""Admission as a whole: when requests are let go, held and shed, with a routing policy that knows what prompts cost."""

from dataclasses import replace

import pytest

from llmproxy.core.backend import Backend, BackendSpec
from llmproxy.core.condition import parse_condition
from llmproxy.core.identity import Identity
from llmproxy.core.ports import Estimate, Moment
from llmproxy.core.prompt import TokenCounts
from llmproxy.core.request import Request
from llmproxy.policy.admission.admission import Admission
from llmproxy.policy.admission.deadline import Slo
from llmproxy.policy.admission.lanes import Lane
from llmproxy.policy.admission.options import AdmissionOptions
from llmproxy.policy.admission.queue import Bounds
from llmproxy.policy.admission.report import report
from llmproxy.policy.admission.saturation.adaptive import AdaptiveOptions
from llmproxy.policy.admission.ticket import Band, Reason

LONG = Lane("long", parse_condition("prompt_tokens > 16k"), 0.3)


class Costs:
    """A routing policy as far as admission asks: a prompt of n tokens takes n milliseconds."""

    def __init__(self):
        self.backlogs = {}

    def pick(self, candidates, request, now):
        return min(candidates, key=lambda backend: self.backlogs.get(backend, 0.0))

    def observe(self, moment, backend, request, now):
        pass

    def forget(self, backend):
        pass

    def backlog_s(self, backend, now):
        return self.backlogs.get(backend, 0.0)

    def estimate(self, candidates, request):
        return Estimate(request.body_bytes / 4, request.body_bytes / 4e3, request.body_bytes / 4e3)


class Scene:
    """An admission, its backends, and what became of requests."""

    def __init__(self, count=2, limit=None, costs=True, **options):
        self.backends = [Backend(BackendSpec(f"b{n}", f"http://b{n}", max_concurrency=limit)) for n in range(count)]
        self.costs = Costs()
        self.admission = Admission(AdmissionOptions(**options), self.costs if costs else object())
        self.sent, self.shed = [], []

    def ask(self, tokens=100, now=0.0, stream=True, **fields):
        """A request comes; None when it has to wait, a `Reason` when it is shed, else its backend."""
        request = Request(body_bytes=tokens * 4, arrived=now, stream=stream, client_ip="10.0.0.1", **fields)
        free = [backend for backend in self.backends if backend.has_room]
        if not self.admission.waiting and free:
            backend = self.costs.pick(free, request, now)
            if self.admission.admit(backend, request, self.backends, now):
                self.send(request, backend, now)
                return request, backend
        ticket = self.admission.ticket(request, self.backends)
        ticket.owner = request
        return request, self.admission.enter(ticket, now, self.note)

    def send(self, request, backend, now):
        backend.load.enter()
        if self.admission.watches:
            self.admission.observe(Moment.SENT, backend, request, now)
        self.sent.append((request, backend))

    def pump(self, now):
        def choose(ticket):
            free = [backend for backend in self.backends if backend.has_room]
            return self.costs.pick(free, ticket.owner, now) if free else None

        self.admission.pump(
            self.backends,
            now,
            choose,
            lambda ticket, backend: self.send(ticket.owner, backend, now),
            self.note,
        )

    def note(self, ticket, reason):
        self.shed.append((ticket.owner, reason))

    def tell(self, moment, request, backend, now, **counts):
        if counts:
            request.tokens = TokenCounts(**counts)
        if moment in (Moment.FINISHED, Moment.FAILED):
            backend.load.leave()
        self.admission.observe(moment, backend, request, now)


def test_a_backlog_holds_streams_until_a_first_token():
    scene = Scene(1)
    first, backend = scene.ask()
    scene.costs.backlogs[backend] = 0.3
    _, waits = scene.ask()
    assert waits is None
    scene.pump(0.1)
    assert scene.admission.waiting == 1
    scene.costs.backlogs[backend] = 0.29
    scene.tell(Moment.FIRST_TOKEN, first, backend, 0.2)
    scene.pump(0.2)
    assert scene.admission.waiting == 0
    assert len(scene.sent) == 2


def test_an_idle_backend_takes_one_whatever_is_thought_to_wait_there():
    scene = Scene(1)
    scene.costs.backlogs[scene.backends[0]] = 99.0
    assert scene.ask()[1] is scene.backends[0]


def test_a_backlog_of_whole_answers_holds_nobody_unless_a_first_token_is_awaited_too():
    scene = Scene(1)
    scene.ask(stream=False)
    scene.costs.backlogs[scene.backends[0]] = 99.0
    stream, backend = scene.ask()
    assert backend is scene.backends[0]
    assert scene.ask()[1] is None
    scene.tell(Moment.FIRST_TOKEN, stream, backend, 0.1)
    scene.pump(0.1)
    assert scene.admission.waiting == 0


def test_the_prompt_of_a_whole_answer_leaves_its_lane_when_it_should_be_computed():
    scene = Scene(1, lanes=(LONG,), backlog_s=0.0)
    backend = scene.backends[0]
    scene.costs.backlogs[backend] = 2.0
    first, _ = scene.ask(20_000, stream=False)
    assert scene.ask(20_000, now=1.9)[1] is None
    scene.pump(1.9)
    assert scene.admission.waiting == 1
    scene.pump(2.0)
    assert scene.admission.waiting == 0
    # Its end takes nothing away a second time.
    scene.tell(Moment.FINISHED, first, backend, 60.0)
    assert report(scene.admission, 60.0)["lanes"][0]["computing"] == 1


def test_a_whole_answer_that_is_over_or_sent_again_is_not_thought_computed():
    scene = Scene(1, lanes=(LONG,), backlog_s=0.0)
    backend = scene.backends[0]
    scene.costs.backlogs[backend] = 2.0
    request, _ = scene.ask(20_000, stream=False)
    scene.tell(Moment.FAILED, request, backend, 1.0)
    scene.admission.admit(backend, request, scene.backends, 1.0)
    scene.tell(Moment.SENT, request, backend, 1.0)
    scene.pump(2.5)
    assert report(scene.admission, 2.5)["lanes"][0]["computing"] == 1
    scene.pump(3.0)
    assert report(scene.admission, 3.0)["lanes"][0]["computing"] == 0


def test_a_few_at_a_time_are_on_their_way_to_a_backend():
    scene = Scene(1)
    backend = scene.backends[0]
    requests = [Request(stream=True) for _ in range(6)]
    assert [scene.admission.admit(backend, one, scene.backends, 0.0) for one in requests] == [True] * 4 + [False] * 2
    scene.admission.observe(Moment.FAILED, backend, requests[0], 0.0)
    assert scene.admission.admit(backend, requests[4], scene.backends, 0.0)


def test_those_who_cannot_go_everywhere_hold_up_nobody():
    scene = Scene(2, limit=1)
    one, first = scene.ask()
    _, second = scene.ask()
    assert first is not second
    for _ in range(12):
        scene.ask()[0].ticket.restricted = True
    last, _ = scene.ask()
    scene.tell(Moment.FINISHED, one, first, 1.0)
    scene.admission.pump(
        scene.backends,
        1.0,
        lambda ticket: None if ticket.restricted else first,
        lambda ticket, backend: scene.send(ticket.owner, backend, 1.0),
        lambda ticket, reason: None,
    )
    assert scene.sent[-1] == (last, first)


class TestDeadlines:
    def test_too_late_before_it_began_is_shed_at_once(self):
        scene = Scene(1, limit=1, slo=Slo(ttft_s=2.0))
        scene.ask()
        assert scene.ask(2100)[1] is Reason.DEADLINE
        assert scene.ask(1900)[1] is None

    def test_the_wait_that_is_expected_counts(self):
        scene = Scene(1, limit=1, slo=Slo(ttft_s=2.0))
        scene.ask()
        for tenth in range(1, 20):
            scene.ask(now=tenth / 2)
            done, backend = scene.sent[-1]
            scene.tell(Moment.FINISHED, done, backend, tenth / 2)
            scene.pump(tenth / 2)
        # Two a second are served, so the sixth in line has no chance within two.
        found = [scene.ask(now=9.5)[1] for _ in range(6)]
        assert found[:3] == [None] * 3
        assert found[5] is Reason.DEADLINE

    def test_who_waited_too_long_is_shed_when_it_is_too_late(self):
        scene = Scene(1, limit=1, slo=Slo(ttft_s=2.0))
        scene.ask()
        request, _ = scene.ask(500)
        scene.pump(1.4)
        assert scene.shed == []
        scene.pump(1.6)
        assert scene.shed == [(request, Reason.DEADLINE)]
        assert scene.admission.waiting == 0

    def test_long_prompts_have_longer(self):
        scene = Scene(1, limit=1, slo=Slo(ttft_s=2.0, ttft_scaled=1.5))
        scene.ask()
        request, reason = scene.ask(20_000)
        assert reason is None
        assert request.ticket.deadline == pytest.approx(30.0)

    def test_batch_is_demoted_not_shed(self):
        scene = Scene(1, limit=1, slo=Slo(ttft_s=2.0))
        scene.ask()
        late, reason = scene.ask(2100, priority=Band.BATCH)
        assert reason is None
        waits, _ = scene.ask(500, priority=Band.BATCH)
        scene.pump(5.0)
        assert scene.shed == []
        assert [ticket.deadline for ticket in (late.ticket, waits.ticket)] == [float("inf")] * 2
        scene.pump(31.0)
        assert {reason for _, reason in scene.shed} == {Reason.WAIT}

    @pytest.mark.parametrize(("text", "at"), [(b"1", 1.0), (b"500ms", 0.5), (b" 1.5s ", 1.5), (b"9", 2.0)])
    def test_the_client_may_ask_for_less_time(self, text, at):
        scene = Scene(1, limit=1, slo=Slo(ttft_s=2.0))
        scene.ask()
        assert scene.ask(headers=[(b"X-Request-Timeout", text)])[0].ticket.deadline == at

    @pytest.mark.parametrize("text", [b"", b"soon", b"-1", b"1e9", b"inf", b"1" * 40, b"\xd9\xa1"])
    def test_nonsense_is_no_timeout(self, text):
        scene = Scene(1, limit=1)
        scene.ask()
        assert scene.ask(headers=[(b"X-Request-Timeout", text)])[0].ticket.deadline == float("inf")

    def test_late_first_tokens_make_it_careful(self):
        scene = Scene(1, limit=1, slo=Slo(ttft_s=2.0))
        for second in range(0, 400, 10):
            request, backend = scene.ask(1000, now=float(second))
            scene.tell(Moment.FIRST_TOKEN, request, backend, second + 3.0)
            scene.tell(Moment.FINISHED, request, backend, second + 3.0)
        scene.ask(1000, now=400.0)
        # What takes a second when nobody is wrong is not begun any more with two left.
        assert scene.ask(1000, now=400.0)[1] is Reason.DEADLINE


class TestTokenTimes:
    def test_prompts_get_less_of_the_time_when_answers_are_slow(self):
        scene = Scene(1, slo=Slo(tpot_s=0.1))
        share = scene.admission.saturation.share
        before = share.limit
        for number in range(5):
            request, backend = scene.ask(now=number * 100.0)
            scene.tell(Moment.FIRST_TOKEN, request, backend, number * 100.0 + 0.1)
            scene.tell(Moment.FINISHED, request, backend, number * 100.0 + 10.1, completion=51)
        assert share.limit < before

    def test_a_backend_that_computes_prompts_all_the_time_gets_no_more(self):
        scene = Scene(1, slo=Slo(tpot_s=0.1))
        request, backend = scene.ask()
        assert scene.ask(now=5.0)[1] is backend
        assert scene.ask(now=60.0)[1] is None
        for one in (request, scene.sent[1][0]):
            scene.tell(Moment.FIRST_TOKEN, one, backend, 60.0)
        scene.pump(60.0)
        assert scene.admission.waiting == 1
        scene.pump(80.0)
        assert scene.admission.waiting == 0


class TestLanes:
    def test_a_lane_keeps_to_its_share(self):
        scene = Scene(4, lanes=(LONG,))
        first, backend = scene.ask(20_000)
        assert scene.ask(20_000)[1] is None
        # Behind it, chat goes on as soon as anything happens.
        chat, waits = scene.ask(100)
        assert waits is None
        scene.pump(0.1)
        assert scene.sent[-1][0] is chat
        scene.tell(Moment.FIRST_TOKEN, first, backend, 5.0)
        scene.pump(5.0)
        assert len(scene.sent) == 3

    def test_other_lanes_after_a_reload(self):
        scene = Scene(1, lanes=(LONG,))
        request, backend = scene.ask(20_000)
        scene.admission.configure(AdmissionOptions(), scene.costs)
        scene.tell(Moment.FINISHED, request, backend, 1.0)
        scene.admission.configure(AdmissionOptions(lanes=(LONG, replace(LONG, name="x"))), scene.costs)
        assert scene.ask(20_000)[1] is backend


def test_adaptive_limits_follow_first_tokens():
    scene = Scene(1, costs=False, adaptive=AdaptiveOptions(least=2, first=4, most=8, tolerance=2.0))
    backend = scene.backends[0]

    def round_trip(ttft_s, now):
        live = [scene.ask(now=now)[0] for _ in range(4)]
        live = [request for request, _ in scene.sent[-4:] if request in live]
        for request in live:
            scene.tell(Moment.FIRST_TOKEN, request, backend, now + ttft_s)
        for request in live:
            scene.tell(Moment.FINISHED, request, backend, now + ttft_s)
        for ticket in scene.admission.in_line():
            scene.admission.leave(ticket)

    limits = scene.admission.saturation.adaptive
    for number in range(20):
        round_trip(0.1, number * 1.0)
    assert limits.limit(backend) == 8 or limits.limit(backend) > 4
    grown = limits.limit(backend)
    for number in range(60):
        round_trip(0.9, 100 + number * 1.0)
    assert limits.limit(backend) < grown
    assert report(scene.admission, 200.0)["adaptive_limits"] == {"b0": limits.limit(backend)}


def test_plain_pools_know_nothing_and_watch_nothing():
    scene = Scene(1, limit=1, costs=False)
    assert not scene.admission.watches
    assert not scene.admission.holds
    request, backend = scene.ask()
    assert request.ticket is None
    assert scene.ask()[1] is None
    backend.load.leave()
    scene.pump(1.0)
    assert len(scene.sent) == 2


def test_ten_thousand_that_left_leave_nothing():
    scene = Scene(
        2, limit=1, slo=Slo(ttft_s=2.0), lanes=(LONG,), bounds=Bounds(waiting_max=20_000, tenant_waiting_max=20_000)
    )
    live = [scene.ask() for _ in range(2)]
    for number in range(10_000):
        request, reason = scene.ask(100 + number % 3 * 20_000, now=number * 1e-5)
        if reason is None:
            scene.admission.leave(request.ticket)
    for request, backend in live:
        scene.tell(Moment.FAILED, request, backend, 1.0)
    told = report(scene.admission, 1.0)
    assert (told["waiting"], told["waiting_bytes"], told["tenants"]) == (0, 0, [])
    assert told["lanes"][0]["computing"] == 0
    assert scene.admission.saturation._awaiting.streams == {}
    assert scene.admission.saturation._starting == {}
    assert scene.admission.queue.remembered == 0


def test_what_was_under_way_when_a_reload_stopped_watching_is_forgotten():
    scene = Scene(1, lanes=(LONG,), tenant_share=0.5)
    request, backend = scene.ask(20_000)
    scene.admission.configure(AdmissionOptions(backlog_s=0.0), scene.costs)
    assert not scene.admission.watches
    scene.admission.configure(AdmissionOptions(lanes=(LONG,)), scene.costs)
    scene.costs.backlogs[backend] = 99.0
    assert scene.ask(20_000)[1] is backend
    scene.tell(Moment.FINISHED, request, backend, 1.0)


def test_a_flood_that_fills_the_line_keeps_nobody_out():
    """Twice as many of the flood as may wait, then others: each gets in, at the flood's expense, and nobody is lost."""
    scene = Scene(1, limit=1, bounds=Bounds(waiting_max=10))
    refused = [scene.ask(identity=Identity("flood"))[1] for _ in range(20)][1:]
    assert refused == [None] * 10 + [Reason.FULL] * 9
    others = [scene.ask(identity=Identity(f"t{number}")) for number in range(4)]
    assert [reason for _, reason in others] == [None] * 4
    assert [(request.tenant, reason) for request, reason in scene.shed] == [("flood", Reason.FULL)] * 4
    assert scene.ask(identity=Identity("flood"))[1] is Reason.FULL
    assert scene.admission.waiting == 10
