"""Who asks: where the key is looked for, what is looked at, what is told to those who are not let in."""

import hashlib
from collections import Counter
from typing import Any

import pytest

from llmproxy.auth import refusals
from llmproxy.auth.credential import KEY_MAX_BYTES, Credential, credential_of
from llmproxy.auth.gate import Gate
from llmproxy.auth.live_keys import LiveKeys
from llmproxy.auth.static_keys import StaticKeys
from llmproxy.auth.verified import Verified
from llmproxy.core.errors import ProxyError, Unauthorized
from llmproxy.core.identity import Identity
from llmproxy.stores.key_record import KeyRecord, encode

NOW = 1_800_000_000.0
KEY = b"sk-one"


def sha256(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


@pytest.mark.parametrize(
    ("authorization", "headers", "secret"),
    [
        (b"Bearer sk-one", [], KEY),
        (b"bearer   sk-one ", [], KEY),
        (None, [(b"X-API-Key", b"sk-one")], KEY),
        (None, [(b"Accept", b"*/*"), (b"api-key", b" sk-one ")], KEY),
        (b"Basic c2s6b25l", [(b"x-api-key", b"sk-one")], KEY),
        (b"Bearer sk-one", [(b"x-api-key", b"sk-two")], KEY),
        (b"Bearer ", [(b"x-api-key", b"sk-one")], KEY),
        (b"Bearer", [], None),
        (b"sk-one", [], None),
        (None, [(b"x-api-kez", b"sk-one"), (b"x-api-key", b"")], None),
        (None, [], None),
    ],
)
def test_where_a_key_is_looked_for(authorization: Any, headers: Any, secret: Any) -> None:
    found = credential_of(authorization, headers)
    assert (None if found is None else found.secret) == secret


class Untouchable:
    """Stands for the key itself: whoever looks at it fails."""

    digest = sha256(KEY)

    @property
    def secret(self) -> bytes:
        raise AssertionError("the key was looked at")


class Digest(bytes):
    """A digest that notes with what it is compared."""

    seen: list[object]

    def __eq__(self, other: object) -> bool:
        self.seen.append(other)
        return bytes.__eq__(self, other)  # type: ignore[arg-type]

    __hash__ = bytes.__hash__


def test_only_digests_are_ever_compared() -> None:
    """Constant time by construction: no authenticator of keys looks at the key, so how long a comparison takes can
    tell of its digest only, which nobody can steer."""
    live = LiveKeys(60)
    live.replace({sha256(KEY): encode(KeyRecord("k", "t", "free", NOW))}, NOW)
    for keys in (StaticKeys({sha256(KEY): Identity("t")}), live):
        credential: Any = Untouchable()
        assert keys.authenticate(credential, NOW) is not None  # type: ignore[attr-defined]
    noting = Digest(sha256(KEY))
    noting.seen = []
    credential = Untouchable()
    credential.digest = noting
    assert StaticKeys({sha256(KEY): Identity("t")}).authenticate(credential, NOW) is not None
    assert noting.seen
    assert {len(other) for other in noting.seen} == {32}  # type: ignore[arg-type]


def test_nothing_keeps_the_key() -> None:
    """What authenticators remember holds its digest, nowhere the key."""
    live = LiveKeys(60)
    live.replace({sha256(KEY): encode(KeyRecord("k", "t", "free", NOW))}, NOW)
    static = StaticKeys({sha256(KEY): Identity("t")})
    for keys in (live, static):
        keys.authenticate(Credential(KEY), NOW)  # type: ignore[attr-defined]
        assert KEY.decode() not in repr(vars(keys))
        assert repr(KEY) not in repr(vars(keys))
    assert "sk-one" not in repr(Credential(KEY))


def make_gate(*authenticators: Any, **options: Any) -> tuple[Gate, Counter[str]]:
    results: Counter[str] = Counter()
    return Gate(authenticators, wall=lambda: NOW, results=results, **options), results


def test_the_gate_asks_in_turn_and_counts() -> None:
    first = StaticKeys({sha256(KEY): Identity("a")})
    second = StaticKeys({sha256(b"two"): Identity("b"), sha256(b"old"): Identity("c", expires_at=NOW)})
    gate, results = make_gate(first, second)
    found = [gate.admit(b"Bearer " + key, ()) for key in (KEY, b"two")]
    assert [identity and identity.tenant for identity in found] == ["a", "b"]
    for authorization, reason in ((None, "missing"), (b"Bearer three", "unknown"), (b"Bearer old", "expired")):
        with pytest.raises(Unauthorized) as refused:
            gate.admit(authorization, ())
        assert (refused.value.status, refused.value.code) == (401, "invalid_api_key")
        assert (b"WWW-Authenticate", b"Bearer") in refused.value.headers
        assert "three" not in refused.value.message
        assert results[reason] == 1
    assert results["ok"] == 2


def test_with_anonymous_no_key_passes_but_a_bad_one_does_not() -> None:
    gate, results = make_gate(StaticKeys({}), lets_anonymous=True)
    assert gate.admit(None, ()) is None
    with pytest.raises(Unauthorized):
        gate.admit(b"Bearer bad", ())
    assert results == {"anonymous": 1, "unknown": 1}


def test_a_key_that_is_too_long_is_not_even_looked_up() -> None:
    long = b"x" * (KEY_MAX_BYTES + 1)
    gate, _ = make_gate(StaticKeys({sha256(long): Identity("t")}))
    with pytest.raises(Unauthorized):
        gate.admit(b"Bearer " + long, ())


def test_a_store_that_cannot_say_is_no_401() -> None:
    gate, results = make_gate(LiveKeys(60))
    with pytest.raises(ProxyError) as refused:
        gate.admit(b"Bearer sk-one", ())
    assert (refused.value.status, refused.value.code) == (503, "auth_unavailable")
    assert refused.value.retry_after_s
    assert results == {"unavailable": 1}


# -- keys from a store -------------------------------------------------------------------------------------------------


def live_keys(**fields: Any) -> LiveKeys:
    keys = LiveKeys(60)
    keys.replace({sha256(KEY): encode(KeyRecord("k", "t", "free", NOW, **fields))}, NOW)
    return keys


def ask(keys: LiveKeys, key: bytes = KEY, at: float = NOW) -> str:
    try:
        identity = keys.authenticate(Credential(key), at)
    except refusals.Refused as error:
        return error.reason
    except ProxyError as error:
        return error.code
    return "nobody" if identity is None else identity.tenant


def test_a_record_becomes_an_identity() -> None:
    keys = live_keys(models=("llama-*",), priority="high", expires_at=NOW + 5)
    identity = keys.authenticate(Credential(KEY), NOW)
    assert identity is not None
    assert (identity.tenant, identity.tier, identity.key_name, identity.priority) == ("t", "free", "k", "high")
    assert (identity.models, identity.expires_at) == (("llama-*",), NOW + 5)


def test_changes_count_at_once_although_the_key_was_verified_before() -> None:
    keys = live_keys()
    assert ask(keys) == "t"
    keys.change(sha256(KEY), encode(KeyRecord("k", "t", "free", NOW, revoked_at=NOW)))
    assert ask(keys) == "revoked"
    keys.change(sha256(KEY), None)
    assert ask(keys) == "nobody"
    keys.change(sha256(KEY), encode(KeyRecord("k", "u", "free", NOW)))
    assert ask(keys) == "u"
    keys.replace({}, NOW)
    assert ask(keys) == "nobody"


def test_a_verified_key_ends_when_it_ends() -> None:
    keys = live_keys(expires_at=NOW + 2)
    assert [ask(keys, at=NOW + after) for after in (0, 1.9, 2, 3)] == ["t", "t", "expired", "expired"]


def test_a_silent_store_leaves_known_keys_good_for_a_bounded_time() -> None:
    keys = live_keys()
    assert ask(keys, b"other", NOW + 3) == "nobody"
    assert ask(keys, b"other", NOW + 5) == "auth_unavailable"
    assert [ask(keys, at=NOW + after) for after in (5, 60, 61)] == ["t", "t", "auth_unavailable"]
    keys.confirm(NOW + 61)
    assert (ask(keys, at=NOW + 62), ask(keys, b"other", NOW + 62)) == ("t", "nobody")


def test_a_store_known_to_be_lost_is_not_waited_for() -> None:
    keys = live_keys()
    keys.lost()
    assert (ask(keys), ask(keys, b"other")) == ("t", "auth_unavailable")


def test_what_is_no_record_is_nobodys_key() -> None:
    keys = LiveKeys(60)
    keys.replace({sha256(KEY): b"{"}, NOW)
    assert ask(keys) == "nobody"


# -- what was verified lately ------------------------------------------------------------------------------------------


def test_bad_keys_push_no_good_one_out() -> None:
    verified = Verified(good_max=2, bad_max=2)
    verified.good(b"g", Identity("t"), NOW + 9)
    for number in range(100):
        verified.bad(b"%d" % number, refusals.unknown(), NOW + 9)
    assert len(verified) == 3
    assert verified.find(b"g", NOW) is not None
    with pytest.raises(refusals.Refused):
        verified.find(b"99", NOW)
    assert verified.find(b"0", NOW) is None


def test_verified_is_bounded_and_ends() -> None:
    verified = Verified(good_max=2)
    for name in (b"a", b"b", b"c"):
        verified.good(name, Identity(name.decode()), NOW + 1)
    assert [verified.find(name, NOW) is not None for name in (b"a", b"b", b"c")] == [False, True, True]
    assert verified.find(b"c", NOW + 1) is None
    assert len(verified) == 1


def test_a_refusal_that_is_remembered_is_raised_anew() -> None:
    verified = Verified()
    why = refusals.unknown()
    verified.bad(b"x", why, NOW + 1)
    raised = []
    for _ in range(2):
        with pytest.raises(refusals.Refused) as refused:
            verified.find(b"x", NOW)
        raised.append(refused.value)
    assert raised[0] is not raised[1]
    assert why not in raised
