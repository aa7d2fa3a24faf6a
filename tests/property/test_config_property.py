"""Any text gives a configuration or a ConfigError; durations and sizes survive being written and read."""

import copy
import json
import math
import re
import string
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmproxy.config import Config, ConfigError, parse
from llmproxy.config.model import PoolConfig
from llmproxy.config.shape import section_of
from llmproxy.config.units import format_duration, format_size, parse_duration, parse_ratio, parse_size
from llmproxy.policies import check_policy

ENV = {"A": "text", "N": "7", "E": "", "U": "http://h:1"}


def outcome(text):
    """The configuration, or its error; anything else that is raised fails the test."""
    try:
        found = parse(text, "f", env=ENV, check_policy=check_policy, on_warning=str)
    except ConfigError as error:
        check(error, text)
        return error
    assert isinstance(found, Config)
    return found


def check(error, text):
    """It says something, on lines that there are (in YAML 1.1's sense), one line each."""
    last = len(re.split("\r\n|[\r\n\x85\u2028\u2029]", text))
    assert error.problems
    assert all(1 <= (problem.line or 0) <= last for problem in error.problems)
    assert all("\n" not in str(problem) and str(problem).startswith("f:") for problem in error.problems)


@given(st.text(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_text(text):
    outcome(text)


YAML_BITS = st.sampled_from("\n \t:-{}[],#&*!|>'\"%@`?\\") | st.sampled_from(
    [
        "pools",
        "server",
        "backends",
        "models",
        "url",
        "http://h:1",
        "m",
        "&a ",
        "*a",
        "<<: ",
        ": ",
        "\n  ",
        "\n- ",
        "---\n",
        "...\n",
        "!!str ",
        "${A}",
        "${",
        "$${",
        "'",
        '"\\u0',
        "null",
        "0x1f",
        "1e9",
        "~",
        "\x85",
    ]
)


@given(st.lists(YAML_BITS, max_size=40).map("".join))
@settings(max_examples=500, deadline=None)
def test_any_pieces_of_yaml(text):
    outcome(text)


def known_keys(section, seen):
    for name, field in section.model_fields.items():
        seen.add(name)
        inner = section_of(field.annotation)
        if inner is not None:
            known_keys(inner, seen)
    return sorted(seen)


KEYS = st.sampled_from([*known_keys(Config, set()), "a", "b", "name", "header", "load_bound", "[key]", "pools.a"])
WORDS = (
    "http://a https://h:1/x 30s 32MiB 20% ${A} ${N} ${E} ${U} ${X} random /x json session_affinity least_connections a"
)
SCALARS = (
    st.sampled_from(["", "b", "10.0.0.0/8", "*", "https://a.b", "0.0.0.0", "::", *WORDS.split()])
    | st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-1, 20)
    | st.floats()
    | st.text(max_size=8)
    | st.text(string.printable, max_size=8)
)
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=20
)
DOCUMENTS = st.fixed_dictionaries(
    {
        "pools": TREES
        | st.dictionaries(
            st.sampled_from(["a", "b", "c d"]),
            st.fixed_dictionaries(
                {"backends": TREES | st.lists(SCALARS, max_size=3)},
                optional={name: TREES for name in PoolConfig.model_fields if name != "backends"},
            ),
            max_size=3,
        )
    },
    optional={name: TREES for name in Config.model_fields if name != "pools"},
)


VALID = {
    "server": {"port": 1, "limits": {"body": "1MiB"}, "timeouts": {"header": "1s"}, "trusted_proxies": ["10.0.0.0/8"]},
    "admin": {"token": "${A}"},
    "pools": {
        "a": {
            "policy": {"name": "session_affinity", "header": "x", "load_bound": 2},
            "backends": [{"url": "http://a", "weight": 2}, "http://b"],
            "health": {"interval": "1s"},
            "breaker": {"open_for": "1s"},
            "timeouts": {"total": "1h"},
            "retry": {"budget": "5%"},
        },
        "b": {"backends": ["${U}"]},
    },
    "models": {"m": {"pool": "a", "rewrite": "n"}},
    "routes": [{"path": "/x", "pool": "b"}],
}


def places(tree, path=()):
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield (*path, key)
        yield from places(value, (*path, key))


def changed(changes):
    """`VALID` with other things in some places."""
    tree = copy.deepcopy(VALID)
    for path, value in changes:
        under = tree
        for key in path[:-1]:
            under = under[key] if isinstance(under, dict) and key in under else None
        if isinstance(under, dict):
            under[path[-1]] = value
    return tree


CHANGED = st.lists(st.tuples(st.sampled_from(list(places(VALID))), SCALARS | TREES), max_size=2).map(changed)


@given(DOCUMENTS | CHANGED)
@example({"pools": {"a": {"backends": ["http://a"], "policy": {"name": "session_affinity", "header": ["\x00"]}}}})
@settings(max_examples=400, deadline=None)
def test_any_tree_of_known_keys(tree):
    outcome(json.dumps(tree))


def test_the_generator_reaches_valid_configurations_and_wrong_ones():
    found = Counter()

    @given(CHANGED)
    @settings(max_examples=100, deadline=None, database=None, derandomize=True)
    def collect(tree):
        found[type(outcome(json.dumps(tree)))] += 1

    collect()
    assert min(found[Config], found[ConfigError]) >= 3, found


@given(st.floats(0, 1e12))
def test_durations_survive(seconds):
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(0, 2**50))
def test_sizes_survive(size):
    assert parse_size(format_size(size)) == size


@given(st.text(max_size=12) | st.text(string.digits + "smhd.%kKMiB ", max_size=12) | st.floats() | st.integers())
def test_units_give_a_number_or_a_value_error(value):
    for read in (parse_duration, parse_size, parse_ratio):
        try:
            number = read(value)
        except ValueError:
            continue
        assert math.isfinite(number)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_what_stands_in_a_variable_arrives_as_it_is(value):
    text = 'admin: {token: "${T}"}\npools: {p: {backends: ["http://h"]}}\n'
    assert parse(text, env={"T": value}).admin.token == value


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=6, max_size=40))
def test_no_message_shows_what_stands_in_a_variable(value):
    text = 'server: {drain_timeout: "${T} soon", trusted_proxies: ["${T}"], port: "${T}x"}\npools: {}\n'
    with pytest.raises(ConfigError) as caught:
        parse(text, env={"T": value})
    shown = str(caught.value).replace("${T}", "")
    innocent = parse_errors_without_the_value(text)
    assert value not in shown or value in innocent


def parse_errors_without_the_value(text):
    with pytest.raises(ConfigError) as caught:
        parse(text, env={"T": "\x01"})
    return str(caught.value)
