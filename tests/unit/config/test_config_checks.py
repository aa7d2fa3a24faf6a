"""What is checked between sections, and inside of single values."""

import pytest

from llmproxy.config import parse

POOL = '{backends: ["http://a:1"]}'


def test_several_pools_need_to_be_told_what_goes_where(errors_of):
    text = f'pools: {{a: {POOL}, b: {{backends: ["http://b:1"]}}}}\n'
    assert errors_of(text) == ["1: pools: with more than one pool, `models` (or `routes`) must say what goes where"]
    assert parse(text + "models: {m: {pool: a}}\n")
    assert parse(text + "routes: [{path: /x, pool: a}]\n")


def test_a_backend_listed_twice(errors_of):
    assert errors_of("pools:\n  a:\n    backends:\n      - http://a:1\n      - http://a:1\n") == [
        "5: pools.a.backends[1]: this backend is in the pool already"
    ]


def test_ids_are_unique_in_the_whole_fleet(errors_of):
    text = (
        "pools:\n  a: {backends: [{url: 'http://a:1', id: x}]}\n  b: {backends: [{url: 'http://b:1', id: x}]}\n"
        "models: {m: {pool: a}, n: {pool: b}}\n"
    )
    assert errors_of(text) == ["3: pools.b.backends[0].id: the id 'x' is taken by a backend of pool 'a'"]


def test_the_same_server_may_be_in_two_pools():
    parse(f"pools: {{a: {POOL}, b: {POOL}}}\nmodels: {{m: {{pool: a}}, n: {{pool: b}}}}\n")


def test_a_mistake_in_one_pool_hides_nothing_about_the_others(errors_of):
    text = (
        "pools:\n  a: {backends: ['http://a:1'], oops: 1}\n"
        "  b: {backends: ['http://b:1', 'http://b:1'], policy: nonsense}\nmodels: {m: {pool: c}}\n"
    )
    found = errors_of(text, check_policy=lambda policy: [("", "no such policy")] if policy.name == "nonsense" else [])
    assert [one.split(": ")[1] for one in found] == [
        "pools.a.oops",
        "pools.b.backends[1]",
        "pools.b.policy",
        "models.m.pool",
    ]


@pytest.mark.parametrize("again", ["/x", "/x/"])
def test_a_route_given_twice(errors_of, again):
    text = f"pools: {{a: {POOL}}}\nroutes:\n  - {{path: /x, pool: a}}\n  - {{path: {again}, pool: a}}\n"
    assert errors_of(text) == [f"4: routes[1].path: there is a route for '{again}' already"]


@pytest.mark.parametrize(
    ("server", "admin", "clash"),
    [
        ("0.0.0.0", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("10.0.0.1", "127.0.0.1", False),
        ("::", "127.0.0.1", True),
    ],
)
def test_the_two_ports_must_not_clash(errors_of, server, admin, clash):
    text = f"server: {{host: '{server}', port: 9000}}\nadmin: {{host: {admin}, port: 9000}}\npools: {{a: {POOL}}}\n"
    if clash:
        assert errors_of(text) == ["2: admin.port: 9000 is the public port already (server.port)"]
    else:
        assert parse(text)


def test_two_free_ports_do_not_clash():
    assert parse(f"server: {{port: 0}}\nadmin: {{port: 0}}\npools: {{a: {POOL}}}\n").admin.port == 0


def test_the_admin_port_needs_a_token_when_others_can_reach_it(errors_of):
    pools = f"pools: {{a: {POOL}}}\n"
    for host in ("127.0.0.1", "127.0.0.2", "::1", "localhost"):
        assert parse(f"admin: {{host: '{host}'}}\n{pools}").admin.is_loopback
    for host in ("0.0.0.0", "::", "10.0.0.1", "proxy.internal"):
        assert "reachable from outside" in errors_of(f"admin: {{host: '{host}'}}\n{pools}")[0]
        assert parse(f"admin: {{host: '{host}', token: x}}\n{pools}")


POLICY = "pools:\n  a:\n    backends: ['http://a:1']\n    policy:\n"


@pytest.mark.parametrize(
    ("policy", "line", "path"),
    [
        ("      name: x\n      wrong: 1\n", 6, "pools.a.policy.wrong"),
        ("      name: x\n      options:\n        wrong: 1\n", 7, "pools.a.policy.options.wrong"),
    ],
)
def test_what_a_policy_says_of_its_options_is_located(errors_of, policy, line, path):
    found = errors_of(POLICY + policy, check_policy=lambda policy: [(name, "is wrong") for name in policy.options])
    assert found == [f"{line}: {path}: is wrong"]


def test_forms_of_a_policy():
    def policy(text):
        found = parse(f"pools: {{a: {{backends: ['http://a:1'], policy: {text}}}}}\n").pools["a"].policy
        return found.name, found.options

    assert policy("random") == ("random", {})
    assert policy("{name: x, a: 1, b: [c]}") == ("x", {"a": 1, "b": ["c"]})
    assert policy("{name: x, options: {a: 1}}") == ("x", {"a": 1})
    assert policy("{name: x, options: }") == ("x", {})
    assert policy("{a: 1}") == ("least_connections", {"a": 1})
    assert policy("") == ("least_connections", {})


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://h", "must start with http"),
        ("h:8000", "must start with http"),
        ("http://", "has no host"),
        ("http://:80", "has no host"),
        ("http://h:0", "no usable port"),
        ("http://h:", "no usable port"),
        ("http://h:99999", "no usable port"),
        ("http://h:x", "no usable port"),
        ("http://u:p@h", "scheme, host, port and path only"),
        ("http://h?x=1", "scheme, host, port and path only"),
        ("http://h#x", "scheme, host, port and path only"),
        ("http://h h", "a space, a control character"),
        ("http://h\\r\\nX: y", "a space, a control character"),
        ("http://h\u00fc", "a space, a control character"),
        ("http://[::1", "'"),
    ],
)
def test_urls_that_are_refused(errors_of, url, message):
    [error] = errors_of(f'pools: {{a: {{backends: ["{url}"]}}}}\n')
    assert error.startswith("1: pools.a.backends[0]: ")
    assert message in error or message == "'"
    assert "u:p" not in error


@pytest.mark.parametrize(
    ("url", "host", "port", "base", "tls"),
    [
        ("http://h", "h", 80, "", False),
        ("https://h/", "h", 443, "", True),
        ("http://h:8000/a/b/", "h", 8000, "/a/b", False),
        ("http://[::1]:8000", "::1", 8000, "", False),
        ("http://[fd00::1]", "fd00::1", 80, "", False),
    ],
)
def test_urls_that_are_taken(url, host, port, base, tls):
    spec = parse(f'pools: {{a: {{backends: ["{url}"]}}}}\n').pools["a"].backends[0].spec("a")
    assert (spec.host, spec.port, spec.base_path, spec.tls) == (host, port, base, tls)


@pytest.mark.parametrize("path", ["x", "/a//b", "/a/../b", "/a/.", "/a?b", "/a%20b", "/a b", "/a#b"])
def test_paths_that_can_never_match(errors_of, path):
    text = f"pools: {{a: {POOL}}}\nroutes:\n  - {{path: '{path}', pool: a}}\nserver: {{allow_routes: ['{path}']}}\n"
    assert [one.split(": ")[1] for one in errors_of(text)] == ["routes[0].path", "server.allow_routes[0]"]


@pytest.mark.parametrize("origin", ["https://a.b/", "a.b", "https://u@a.b", "https://", "null", "https://a.b/c", "**"])
def test_origins_that_no_browser_sends(errors_of, origin):
    text = f"server: {{cors: {{origins: ['{origin}']}}}}\npools: {{a: {POOL}}}\n"
    [error] = errors_of(text)
    assert error.startswith("1: server.cors.origins[0]: ")


def test_origins_and_networks():
    config = parse(
        'server: {cors: {origins: ["*", "http://a:3000"]}, trusted_proxies: [10.0.0.1, "fd00::/8", 10.0.0.1/8]}\n'
        f"pools: {{a: {POOL}}}\n"
    )
    assert config.server.cors.origins == ("*", "http://a:3000")
    assert len(config.server.trusted_proxies) == 3


def test_a_body_must_fit_into_all_bodies(errors_of):
    text = f"server:\n  limits: {{body: 64MiB, buffered: 32MiB}}\npools: {{a: {POOL}}}\n"
    assert errors_of(text) == ["2: server.limits: buffered (32MiB) is smaller than one largest body (64MiB)"]


# -- files -------------------------------------------------------------------------------------------------------------


def with_tls(cert, key):
    return f"server:\n  tls: {{cert: '{cert}', key: '{key}'}}\npools: {{a: {POOL}}}\n"


def test_file_names_are_relative_to_the_configuration(tls):
    config = parse(with_tls("server.crt", "server.key"), base=tls)
    assert config.server.tls.cert == str(tls / "server.crt")


@pytest.mark.parametrize(
    ("cert", "key", "error"),
    [
        ("none.crt", "server.key", "server.tls.cert: there is no file"),
        ("server.crt", ".", "server.tls.key: there is no file"),
        ("server.crt", "", "server.tls.key: the name of the file is empty"),
        ("server.crt", "a\0b", "server.tls.key: there is no file"),
        ("server.crt", "other.key", "server.tls: the key does not belong to the certificate"),
        ("server.crt", "rsa.key", "server.tls: the key does not belong to the certificate"),
        ("server.crt", "encrypted.key", "server.tls: cert and key must be PEM files, and the key must have no pass"),
        ("server.key", "server.key", "server.tls: cert and key must be PEM files, and the key must have no pass"),
    ],
)
def test_tls_files_that_cannot_be_used(errors_of, tls, cert, key, error):
    text = with_tls(cert, key).replace("'a\0b'", '"a\\0b"')
    [found] = errors_of(text, base=tls)
    assert found.startswith(f"2: {error}")


def test_authorities(errors_of, tls):
    text = "pools:\n  a:\n    backends:\n      - {url: 'https://a', ca: server.crt}\n"
    assert parse(text, base=tls).pools["a"].backends[0].ca == str(tls / "server.crt")
    assert errors_of(text.replace("server.crt", "none.crt"), base=tls)[0].startswith(
        "4: pools.a.backends[0].ca: there is no file"
    )
    assert errors_of(text.replace("server.crt", "server.key"), base=tls)[0].endswith("holds no PEM certificate")
    assert errors_of(text.replace("https:", "http:"), base=tls) == [
        "4: pools.a.backends[0]: ca is of use for an https:// url only"
    ]


def test_the_access_log_needs_its_folder(errors_of, tmp_path):
    pools = f"pools: {{a: {POOL}}}\n"
    config = parse(f"logging: {{file: access.log}}\n{pools}", base=tmp_path)
    assert config.logging.file == str(tmp_path / "access.log")
    assert errors_of(f"logging: {{file: logs/access.log}}\n{pools}", base=tmp_path)[0].startswith(
        "1: logging.file: there is no folder"
    )


# -- warnings ----------------------------------------------------------------------------------------------------------


def warnings_of(text):
    found = []
    parse(text, "f", env={}, on_warning=lambda problem: found.append(str(problem)))
    return found


def test_limits_that_nobody_meets():
    limits = "tiers: {gold: {concurrency: 2}}\nlimits: {lease_ttl: 60s}\n"
    found = warnings_of(f"pools: {{a: {POOL}}}\n{limits}")
    assert found == [
        f"f:{line}: {name}: nobody is limited: there are no keys, and no tier in auth.anonymous"
        for line, name in ((2, "tiers"), (3, "limits"))
    ]
    for who in ("keys: [{name: a, tier: free, value: x}]", "auth: {anonymous: free}"):
        assert warnings_of(f"pools: {{a: {POOL}}}\n{limits}{who}\n") == []


def test_the_defaults_warn_of_nothing():
    assert warnings_of(f"pools: {{a: {POOL}}}\n") == []


@pytest.mark.parametrize(
    ("timeouts", "warned"),
    [
        ("{keepalive: 5s}", ["pools.a.timeouts.keepalive"]),
        ("{keepalive: 4999ms}", []),
        ("{between_bytes: 0s}", ["pools.a.timeouts.between_bytes"]),
        ("{first_byte: 0s}", ["pools.a.timeouts.first_byte"]),
        ("{first_byte: 0s, total: 10m}", []),
        ("{total: 10s}", ["pools.a.timeouts.total"]),
        ("{total: 301s}", []),
    ],
)
def test_timeouts_that_are_rarely_meant(timeouts, warned):
    found = warnings_of(f"pools:\n  a:\n    backends: ['http://a']\n    timeouts: {timeouts}\n")
    assert [one.split(": ")[:2] for one in found] == [["f:4", path] for path in warned]


def test_a_pool_that_nothing_leads_to():
    text = f"pools:\n  a: {POOL}\n  b: {{backends: ['http://b']}}\nmodels: {{m: {{pool: a}}}}\n"
    assert warnings_of(text) == ["f:3: pools.b: no model and no route leads here, so it gets no requests"]
    assert warnings_of(text + "routes: [{path: /x, pool: b}]\n") == []


@pytest.mark.parametrize(
    ("models", "warned"),
    [
        ("{m: {pool: a, rewrite: m}}", "the model's own name"),
        ("{x: {pool: a, rewrite: m}, m: {pool: a, rewrite: y}}", "'m' is an alias too, and is sent as it is"),
        ("{x: {pool: a, rewrite: m}, m: {pool: b}}", "'m' is served by pool 'b', but this goes to 'a'"),
        ("{x: {pool: a, rewrite: m}, m: {pool: a}, n: {pool: b}}", None),
        ("{x: {pool: a, rewrite: elsewhere}, m: {pool: b}}", None),
    ],
)
def test_rewrites_that_are_rarely_meant(models, warned):
    found = warnings_of(
        f"pools: {{a: {POOL}, b: {{backends: ['http://b']}}}}\nroutes: [{{path: /x, pool: b}}]\nmodels: {models}\n"
    )
    assert len(found) == (warned is not None)
    assert warned is None or warned in found[0]


def test_a_warning_hides_what_came_from_outside():
    found = []
    parse(
        f"pools: {{a: {POOL}}}\n"
        'models: {x: {pool: a, rewrite: "${S}"}, hunter2-hunter2: {pool: a, rewrite: y}}\n',
        env={"S": "hunter2-hunter2"},
        on_warning=found.append,
    )
    assert "hunter2" not in found[0].message
