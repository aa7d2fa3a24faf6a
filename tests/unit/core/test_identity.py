"""Names of models a key may use, and which addresses are one tenant."""

import pytest

from llmproxy.core.identity import Identity, anonymous
from llmproxy.core.request import Request


def test_models() -> None:
    assert Identity("t").allows("anything")
    some = Identity("t", models=("llama-3-8b", "qwen-*"))
    allowed = [some.allows(name) for name in ("llama-3-8b", "qwen-", "qwen-2.5", "llama-3-8b-x", "Qwen-2", "")]
    assert allowed == [True, True, True, False, False, False]
    assert not Identity("t", models=()).allows("x")


@pytest.mark.parametrize(
    ("ip", "tenant"),
    [
        ("10.0.0.1", "ip:10.0.0.1"),
        ("::ffff:10.0.0.1", "ip:10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "ip:2001:db8:1:2::/64"),
        ("2001:DB8:1:2::9", "ip:2001:db8:1:2::/64"),
        ("2001:db8::1", "ip:2001:db8:0:0::/64"),
        ("::1", "ip:0:0:0:0::/64"),
        ("fe80::1%eth0", "ip:fe80:0:0:0::/64"),
        ("x" * 500, "ip:" + "x" * 64),
    ],
)
def test_an_address_is_a_tenant_and_an_ipv6_site_is_one_address(ip: str, tenant: str) -> None:
    assert anonymous(ip).tenant == tenant


def test_a_request_knows_whose_it_is() -> None:
    nobody = Request(client_ip="10.0.0.1")
    assert (nobody.tenant, nobody.tier) == ("ip:10.0.0.1", "")
    somebody = Request(client_ip="10.0.0.1", identity=Identity("acme", "paid"))
    assert (somebody.tenant, somebody.tier) == ("acme", "paid")
