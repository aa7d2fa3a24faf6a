"""Errors: line, path and words; all of them in one go."""

import re

import pytest

from llmproxy.config import ConfigError, Problem, parse
from llmproxy.config.problem import dotted

WRONG = """\
sever: {port: 1}
server:
  port: 99999
  trusted_proxies: [10.0.0.0/8, 10.0.0.300]
  limits: {body: 32MiBs, connections: 0}
admin:
  host: 0.0.0.0
pools:
  llama:
    polcy: random
    backends:
      - {url: "http://10.0.1.10:8000"}
      - {url: "http://10.0.1.11:8000", weight: -3, max_concurency: 2}
      - ftp://10.0.1.12
    health: {timeout: never}
    breaker: {open_for: 10m}
models:
  gpt: {pool: lama}
  x.y z:
routes:
  - {path: //x, pool: vectors}
logging: {level: loud}
"""


def test_everything_wrong_is_said_at_once_in_the_order_of_the_file(errors_of):
    assert errors_of(WRONG) == [
        "1: sever: unknown key; did you mean `server`?",
        "3: server.port: must be at most 65535",
        "4: server.trusted_proxies[1]: '10.0.0.300' does not appear to be an IPv4 or IPv6 network",
        "5: server.limits.body: '32MiBs' is not a size: write a number with a unit, such as 64KiB or 32MiB",
        "5: server.limits.connections: must be at least 1",
        "6: admin: host '0.0.0.0' is reachable from outside: set a token, or listen on 127.0.0.1",
        "10: pools.llama.polcy: unknown key; did you mean `policy`?",
        "13: pools.llama.backends[1].weight: must be more than 0",
        "13: pools.llama.backends[1].max_concurency: unknown key; did you mean `max_concurrency`?",
        "14: pools.llama.backends[2]: 'ftp://10.0.1.12' must start with http:// or https://",
        "15: pools.llama.health.timeout: 'never' is not a duration: write a number with a unit, such as 250ms, 30s, "
        "5m or 1h",
        "16: pools.llama.breaker: max_open_for is shorter than open_for",
        "18: models.gpt.pool: there is no pool 'lama'; did you mean `llama`?",
        '19: models."x.y z": must be a mapping (key: value)',
        "21: routes[0].path: '//x' can never match: paths are compared decoded and normalised, so write it without a "
        "query, % escapes, //, /./ or /../",
        "21: routes[0].pool: there is no pool 'vectors'",
        "22: logging.level: must be one of 'debug', 'info', 'warning' or 'error'",
    ]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("server: {host: 1}", "server.host: must be text (put it in quotes)"),
        ("server: {host: [a]}", "server.host: must be text"),
        ("server: {port: x}", "server.port: must be a whole number"),
        ("server: {port: 1.5}", "server.port: must be a whole number"),
        ("server: {port: " + "9" * 5000 + "}", "server.port: must be a whole number, and not as large"),
        ("server: {reveal_backend: maybe}", "server.reveal_backend: must be true or false"),
        ("server: {trusted_proxies: 10.0.0.0/8}", "server.trusted_proxies: must be a list"),
        ("server: 3", "server: must be a mapping (key: value)"),
        ("server: {tls: {cert: x}}", "server.tls.key: is required"),
        ("models: [a]", "models: must be a mapping (key: value)"),
        ("routes: [3]", "routes[0]: must be a mapping (key: value)"),
        ("models: {m: {rewrite: x}}", "models.m.pool: is required"),
        ('models: {m: {pool: main, rewrite: ""}}', "models.m.rewrite: must not be empty"),
        (
            "logging: {color: yes}",
            "logging.color: unknown key; the keys here are access, file, level, prefix_hashes, prefix_salt",
        ),
        (
            "logging: {prefix_salt: too short}",
            "logging: prefix_salt needs 16 characters or more: who guesses it can test what prompts said",
        ),
        ("pools: {main: {backends: []}}", "pools.main.backends: needs at least one entry"),
        ("pools: {}", "pools: needs at least one entry"),
        ("pools: {a b: {backends: ['http://h']}}", 'pools."a b": must match ^[A-Za-z0-9._-]{1,64}$'),
        ("pools: {p: {backends: [{}]}}", "pools.p.backends[0].url: is required"),
        ("pools: {p: {backends: [{url: 'http://h', weight: .inf}]}}", "backends[0].weight: must be a finite number"),
        ("pools: {p: {backends: [{url: 'http://h', weight: x}]}}", "backends[0].weight: must be a number"),
        ("pools: {p: {backends: ['http://h'], retry: {attempts: 11}}}", "retry.attempts: must be at most 10"),
        ("pools: {p: {backends: ['http://h'], retry: {budget: 120%}}}", "retry.budget: must be at most 1"),
        ("pools: {p: {backends: ['http://h'], policy: 3}}", "pools.p.policy: must be a mapping (key: value)"),
        ("pools: {p: {backends: ['http://h'], policy: {name: [x]}}}", "pools.p.policy.name: must be text"),
    ],
)
def test_messages(errors_of, text, error):
    whole = text if text.startswith("pools") else text + '\npools: {main: {backends: ["http://h"]}}\n'
    found = errors_of(whole)
    assert any(one.endswith(error) for one in found), found
    assert all(one.startswith("1: ") for one in found), found


def test_a_missing_section_is_reported(errors_of):
    assert errors_of("server: {}") == ["1: pools: is required"]


def test_one_wrong_entry_does_not_make_a_list_empty(errors_of):
    assert len(errors_of("pools: {p: {backends: ['ftp://h']}}")) == 1


def test_problems_know_their_parts():
    with pytest.raises(ConfigError) as caught:
        parse('pools: {main: {backends: ["http://h"]}}\nserver:\n  port: x\n', "proxy.yaml", env={})
    assert caught.value.problems == (Problem("proxy.yaml", 3, "server.port", "must be a whole number"),)
    assert str(caught.value) == "proxy.yaml:3: server.port: must be a whole number"


def test_a_thousand_problems_are_not_all_printed():
    text = "".join(f"key{n}: 1\n" for n in range(1000))
    with pytest.raises(ConfigError) as caught:
        parse(text, env={})
    lines = str(caught.value).splitlines()
    assert len(lines) == 101
    assert re.fullmatch(r"\.\.\. and \d+ more", lines[-1])


def test_odd_keys_cannot_break_a_line():
    assert dotted(("models", "a\nb", "pool")) == 'models."a\\nb".pool'
    assert dotted(("pools", "a", "backends", 3, "url")) == "pools.a.backends[3].url"
    assert "\u001b" not in dotted(("\u001b[31m",))
    assert len(dotted(("x" * 5000,))) < 200
