"""`${...}` in values: what becomes of it, and that it never leaks."""

import random
import traceback

import pytest

from llmproxy.config import ConfigError, parse
from llmproxy.policies import check_policy
from llmproxy.policy.routing.registry import build

MINIMAL = 'pools: {main: {backends: ["http://10.0.1.10:8000"]}}\n'


def token(value, env=None, **options):
    return parse(f"admin: {{token: {value}}}\n{MINIMAL}", env=env or {}, **options).admin.token


@pytest.mark.parametrize(
    ("written", "env", "becomes"),
    [
        ("${A}", {"A": "x"}, "x"),
        ("${A}", {"A": ""}, ""),
        ("${A:-d}", {}, "d"),
        ("${A:-d}", {"A": ""}, "d"),
        ("${A:-d}", {"A": "x"}, "x"),
        ("${A:-}", {}, ""),
        ("p-${A}-${B}-s", {"A": "1", "B": "2"}, "p-1-2-s"),
        ("$${A}", {"A": "x"}, "${A}"),
        ("$A $$ $", {"A": "x"}, "$A $$ $"),
        ("${A}", {"A": "${B}", "B": "x"}, "${B}"),
        ("${A}", {"A": "12345"}, "12345"),
        ("${A}", {"A": "true"}, "true"),
    ],
)
def test_variables(written, env, becomes):
    assert token(f'"{written}"', env) == becomes


def test_a_value_cannot_add_yaml():
    value = 'x"\nserver: {port: 1}\n- {a: *b}'
    config = parse(f'admin: {{token: "${{A}}"}}\n{MINIMAL}', env={"A": value})
    assert config.admin.token == value
    assert config.server.port == 8080


def test_the_environment_is_used_when_none_is_given(monkeypatch):
    monkeypatch.setenv("LLMPROXY_TEST_TOKEN", "from outside")
    assert parse(f'admin: {{token: "${{LLMPROXY_TEST_TOKEN}}"}}\n{MINIMAL}').admin.token == "from outside"


def test_text_from_outside_does_for_numbers_durations_sizes_shares_and_booleans():
    config = parse(
        """
server:
  port: "${PORT}"
  drain_timeout: ${DRAIN}
  limits: {body: "${BODY}"}
  timeouts: {header: "${HEADER}"}
  reveal_backend: "${REVEAL}"
logging: {level: "${LEVEL:-debug}"}
pools:
  main:
    backends: [{url: "http://${HOST}:8000", weight: "${WEIGHT}", max_concurrency: "${MAX}"}]
    retry: {budget: "${BUDGET}"}
""",
        env={
            "PORT": "9000",
            "DRAIN": "5s",
            "BODY": "1MiB",
            "HEADER": "7",
            "REVEAL": "false",
            "HOST": "h",
            "WEIGHT": "2.5",
            "MAX": "8",
            "BUDGET": "30%",
        },
    )
    assert (config.server.port, config.server.drain_timeout, config.server.limits.body) == (9000, 5, 1024**2)
    assert (config.server.timeouts.header, config.server.reveal_backend) == (7, False)
    [backend] = config.pools["main"].backends
    assert (backend.url, backend.weight, backend.max_concurrency) == ("http://h:8000", 2.5, 8)
    assert config.pools["main"].retry.budget == 0.3
    assert config.logging.level == "debug"


def test_a_missing_variable_is_named_and_nothing_else_is_said_of_the_value(errors_of, with_minimal):
    text = with_minimal('server: {port: "${PORT}"}\nadmin:\n  token: "${TOKEN}"\n  host: 0.0.0.0\n')
    assert errors_of(text) == [
        "1: server.port: the environment variable PORT is not set (${PORT:-} allows that)",
        "3: admin.token: the environment variable TOKEN is not set (${TOKEN:-} allows that)",
    ]


def test_an_alias_of_a_missing_variable_is_one_error(errors_of):
    text = "pools:\n  a:\n    backends: ['http://a:1']\n    timeouts: {connect: &t '${T}', total: *t}\n"
    assert errors_of(text) == [
        "4: pools.a.timeouts.connect: the environment variable T is not set (${T:-} allows that)"
    ]


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("${A", "a ${ without its }"),
        ("${}", "takes NAME, NAME:-default or file:PATH"),
        ("${A B}", "takes NAME, NAME:-default or file:PATH"),
        ("${A-x}", "takes NAME, NAME:-default or file:PATH"),
        ("${1A}", "takes NAME, NAME:-default or file:PATH"),
        ("${file:}", "there is no file ''"),
        ("${file:no-such-file}", "there is no file 'no-such-file'"),
    ],
)
def test_what_is_no_template(errors_of, with_minimal, written, message):
    [error] = errors_of(with_minimal(f'admin: {{token: "{written}"}}'), env={"A": "x"})
    assert error.startswith("1: admin.token: ")
    assert message in error


def test_a_variable_that_is_not_utf_8_is_refused(errors_of, with_minimal):
    [error] = errors_of(with_minimal('admin: {token: "${A}"}'), env={"A": "\udcff"})
    assert error == "1: admin.token: the environment variable A is not UTF-8"


def test_secrets_from_files_lose_the_newline_at_their_end(tmp_path):
    (tmp_path / "key").write_text(" a b \r\n")
    assert token(f'"${{file:{tmp_path}/key}}"') == " a b "
    assert token('"${file:key}"', base=tmp_path) == " a b "


@pytest.mark.parametrize(
    ("content", "message"), [(b"\xff", "is not UTF-8"), (b"x" * 70_000, "is larger than 65536 bytes")]
)
def test_unfit_secret_files(errors_of, with_minimal, tmp_path, content, message):
    (tmp_path / "key").write_bytes(content)
    [error] = errors_of(with_minimal('admin: {token: "${file:key}"}'), base=tmp_path)
    assert message in error


def test_a_device_is_no_secret_file(errors_of, with_minimal):
    [error] = errors_of(with_minimal('admin: {token: "${file:/dev/zero}"}'))
    assert "there is no file '/dev/zero'" in error


SECRET = "hunter2-hunter2"


@pytest.mark.parametrize(
    "text",
    [
        'server: {port: "${S}"}',
        'server: {drain_timeout: "${S}"}',
        'server: {limits: {body: "${S}"}}',
        'server: {trusted_proxies: ["${S}"]}',
        'server: {cors: {origins: ["${S}"]}}',
        'server: {tls: {cert: "${S}", key: "x${S}"}}',
        'server: {allow_routes: ["${S}"]}',
        'logging: {level: "${S}"}',
        'models: {m: {pool: "${S}"}}',
        'routes: [{path: "x/${S}", pool: main}]',
        'admin: {host: "${S}"}',
        'pools: {p: {backends: ["${S}"]}}',
        'pools: {p: {backends: ["ftp://user:${S}@h"]}}',
        'pools: {p: {backends: ["ftp://${S}"]}}',
        'pools: {p: {backends: ["http://h:${S}"]}}',
        'pools: {p: {backends: ["http://[${S}]:80"]}}',
        'pools: {p: {backends: [{url: "http://h", id: "${S} "}]}}',
        'pools: {p: {backends: [{url: "http://h", id: "${S}"}, {url: "http://g", id: "${S}"}]}}',
        'pools: {p: {backends: ["http://h"], policy: "${S}"}}',
    ],
)
def test_no_error_shows_what_came_from_outside(text):
    def check_policy(policy):
        return [("", f"there is no policy {policy.name!r}")] if policy.name != "least_connections" else []

    whole = text if text.startswith("pools") else f"{text}\n{MINIMAL}"
    with pytest.raises(ConfigError) as caught:
        parse(whole, env={"S": SECRET}, check_policy=check_policy)
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + str(caught.value)
    assert SECRET not in told
    assert caught.value.problems


def test_no_repr_shows_a_secret():
    config = parse(
        f'admin: {{token: {SECRET}}}\npools: {{p: {{backends: ["http://h"], upstream_key: {SECRET}}}}}\n', env={}
    )
    assert config.admin.token == SECRET
    assert config.pools["p"].upstream_key == SECRET
    assert SECRET not in f"{config!r} {config} {config.admin!r} {config.pools!r}"


def test_a_short_value_does_not_eat_the_messages(errors_of, with_minimal):
    [error] = errors_of(with_minimal('server: {port: "${A}"}'), env={"A": "a"})
    assert error == "1: server.port: must be a whole number"


AFFINITY = """
pools:
  main:
    backends: ["http://10.0.1.10:8000"]
    policy:
      name: session_affinity
      load_bound: "${BOUND}"
"""


def test_a_policy_s_numbers_may_come_from_outside(errors_of):
    config = parse(AFFINITY, env={"BOUND": "1.5"}, check_policy=check_policy)
    policy = config.pools["main"].policy
    assert build(policy.name, policy.options, random.Random(0))._bound == 1.5
    for unfit in ("a lot", "nan", "1,5", ""):
        found = errors_of(AFFINITY, env={"BOUND": unfit}, check_policy=check_policy)
        assert len(found) == 1
        assert found[0].startswith("7: pools.main.policy.load_bound: ")
        assert found[0].endswith("must be a number")
        assert "lot" not in found[0]
    assert "1 or more" in errors_of(AFFINITY, env={"BOUND": "0.5"}, check_policy=check_policy)[0]
