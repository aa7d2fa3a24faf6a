"""ip_hash and session_affinity: choices that a client can count on."""

from collections import Counter
from math import ceil

import pytest

from llmproxy.core.backend import Backend, BackendSpec
from llmproxy.core.request import Request
from llmproxy.policy.routing.rendezvous import digest


def session(name):
    return Request(headers=((b"X-Session-ID", name.encode()),))


class TestIpHash:
    def test_one_client_stays(self, policy, backends, picks):
        assert len(set(picks(policy("ip_hash"), backends(1, 1, 1), 20, Request(client_ip="10.1.2.3")))) == 1

    def test_clients_spread_by_weight(self, policy, backends):
        two, hashed = backends(1, 3), policy("ip_hash")
        counts = Counter(hashed.pick(two, Request(client_ip=f"10.1.{i >> 8}.{i & 255}"), 0.0).id for i in range(4000))
        assert 850 < counts["a"] < 1150

    def test_order_and_id_play_no_part(self, policy, backends):
        five = backends(1, 1, 1, 1, 1)
        renamed = [Backend(BackendSpec(id=f"other-{b.id}", url=b.spec.url)) for b in reversed(five)]
        for i in range(50):
            request = Request(client_ip=f"10.0.0.{i}")
            one = policy("ip_hash").pick(five, request, 0.0)
            assert policy("ip_hash").pick(renamed, request, 0.0).spec.url == one.spec.url

    def test_the_hash_is_the_same_in_every_process(self):
        # A literal, because Python's own hash() of a string differs from process to process.
        assert digest("http://10.0.0.1:8000") == 0x466CF36C0B783AF5

    def test_forgets(self, policy, backends):
        two, hashed = backends(1, 1), policy("ip_hash")
        hashed.pick(two, Request(client_ip="::1"), 0.0)
        hashed.forget(two[0])
        assert list(hashed._rendezvous._seeds) == [two[1]]


class TestSessionAffinity:
    def test_one_session_stays(self, policy, backends, picks):
        assert len(set(picks(policy("session_affinity"), backends(1, 1, 1), 20, session("s")))) == 1

    def test_sessions_spread(self, policy, backends):
        four, sticky = backends(1, 1, 1, 1), policy("session_affinity")
        counts = Counter(sticky.pick(four, session(f"s{i}"), 0.0).id for i in range(4000))
        assert len(counts) == 4
        assert all(850 < count < 1150 for count in counts.values())

    def test_says_why(self, policy, backends):
        two, sticky = backends(1, 1), policy("session_affinity")
        asked = [session("s"), Request()]
        for request in asked:
            sticky.pick(two, request, 0.0)
        assert [request.reason for request in asked] == ["session", "load"]
        home = sticky.pick(two, asked[0], 0.0)
        for _ in range(10):
            home.load.enter()
        assert sticky.pick(two, asked[0], 0.0) is not home
        assert asked[0].reason == "bounded"

    def test_no_session_means_least_connections(self, policy, backends):
        two, sticky = backends(1, 1), policy("session_affinity")
        for _ in range(20):
            sticky.pick(two, Request(), 0.0).load.enter()
        assert [backend.load.in_flight for backend in two] == [10, 10]

    @pytest.mark.parametrize(
        ("options", "request_"),
        [
            ({}, Request(headers=((b"x-session-id", b"s"),))),
            ({}, Request(field={"user": "s"}.get)),
            ({}, Request(field={"prompt_cache_key": "s", "user": "other"}.get)),
            ({}, Request(field={"session_id": "s", "prompt_cache_key": "other"}.get)),
            ({}, Request(headers=((b"x-session-id", b" "),), field={"user": "s"}.get)),
            ({"header": "X-Chat"}, Request(headers=((b"x-chat", b"s"),), field={"user": "other"}.get)),
            ({"cookie": "sid"}, Request(headers=((b"Cookie", b"a=b; sid=s"),))),
            ({"field": ["conversation", "user"]}, Request(field={"user": "s"}.get)),
            ({"field": "user", "cookie": "sid"}, Request(headers=((b"Cookie", b"sid=s"),), field={"user": "x"}.get)),
        ],
    )
    def test_where_the_session_is_found(self, policy, options, request_):
        assert policy("session_affinity", **options).session(request_) == "s"

    @pytest.mark.parametrize(
        ("options", "request_"),
        [
            ({"header": "X-Chat"}, Request(field={"user": "s"}.get)),
            ({"field": "user"}, Request(headers=((b"x-session-id", b"s"),))),
            ({}, Request(headers=((b"cookie", b"user=s"),), field={"user": ""}.get)),
        ],
    )
    def test_where_it_is_not(self, policy, options, request_):
        assert policy("session_affinity", **options).session(request_) is None

    def test_an_overloaded_backend_hands_on(self, policy, backends):
        three, sticky = backends(1, 1, 1), policy("session_affinity")
        home = sticky.pick(three, session("s"), 0.0)
        for _ in range(30):
            chosen = sticky.pick(three, session("s"), 0.0)
            chosen.load.enter()
            in_flight = sum(backend.load.in_flight for backend in three)
            assert chosen.load.in_flight <= ceil(1.25 * in_flight / 3)
        assert home.load.in_flight == max(backend.load.in_flight for backend in three)
        assert home.load.in_flight > 10

    def test_a_wide_bound_keeps_the_session_together(self, policy, backends):
        three, sticky = backends(1, 1, 1), policy("session_affinity", load_bound=100)
        for _ in range(30):
            sticky.pick(three, session("s"), 0.0).load.enter()
        assert sorted(backend.load.in_flight for backend in three) == [0, 0, 30]

    def test_back_home_once_there_is_room(self, policy, backends):
        two, sticky = backends(1, 1), policy("session_affinity")
        home = sticky.pick(two, session("s"), 0.0)
        for _ in range(8):
            home.load.enter()
        assert sticky.pick(two, session("s"), 0.0) is not home
        for _ in range(8):
            home.load.leave()
        assert sticky.pick(two, session("s"), 0.0) is home

    def test_a_bound_of_one_still_finds_a_place(self, policy, backends):
        many, sticky = backends(0.1, 0.7, 0.2, 1e-6, 3), policy("session_affinity", load_bound=1)
        for i in range(200):
            sticky.pick(many, session(f"s{i}"), 0.0).load.enter()
        assert sum(backend.load.in_flight for backend in many) == 200
