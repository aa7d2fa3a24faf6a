"""YAML itself: what is read, what is refused, and on which line."""

import pytest

from llmproxy.config import ConfigError, load, parse
from llmproxy.config.scalars import core_value

MINIMAL = 'pools: {main: {backends: ["http://10.0.1.10:8000"]}}\n'


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "the file is empty"),
        ("# only a comment\n", 1, "the file is empty"),
        ("- a\n- b\n", 1, "must be a mapping"),
        ("\n\njust words\n", 3, "must be a mapping"),
        ("a: 1\nb: [1, 2\nc: 3\n", 3, "not YAML: "),
        ("a: 1\n\tb: 2\n", 2, "not YAML: "),
        ('a: "open\n', 2, "not YAML: "),
        ("a: *nowhere\n", 1, "nothing is called &nowhere"),
        ("a: &a [*a]\n", 1, "*a is inside of what it stands for"),
        ("a: 1\n---\nb: 2\n", 2, "a second document"),
        ("a: 1\nb: \x01\n", 2, "a control character"),
        ('a: 1\nb: "\\UFFFFFFFF"\n', 2, "out of range"),
        ("%YAML 1." + "9" * 5000 + "\n---\na: 1\n", 1, "out of range"),
        ("a: " + "[" * 5000 + "]" * 5000, 1, "nested more than"),
        ("pools: " + "x" * 1024**2, 1, "larger than"),
    ],
)
def test_what_cannot_be_read(errors_of, text, line, message):
    [error] = errors_of(text)
    assert error.startswith(f"{line}: ")
    assert message in error


def test_a_key_given_twice_is_refused_at_its_second_line(errors_of):
    text = "server:\n  port: 1\n  host: a\n  port: 2\n" + MINIMAL
    assert errors_of(text) == ["4: server.port: given twice (first on line 2)"]


def test_a_key_that_is_no_text_is_refused(errors_of):
    assert "1: a key must be plain text" in errors_of("? [a]\n: b\n" + MINIMAL)


@pytest.mark.parametrize("tag", ["!!python/object:os.system", "!mine", "!!binary", "!!timestamp"])
def test_tags_are_refused(errors_of, tag):
    assert errors_of(f"server:\n  host: {tag} x\n" + MINIMAL) == [
        "2: server.host: tags are not supported: write the plain value"
    ]


def test_half_a_surrogate_pair_is_refused(errors_of):
    [error, *_] = errors_of('server: {host: "\\ud800"}\n' + MINIMAL)
    assert error == "1: server.host: half a surrogate pair is no character"


def test_anchors_aliases_and_merges_are_followed():
    config = parse(
        """
pools:
  a:
    backends: ["http://a:1"]
    timeouts: &slow {total: 9s, connect: 1s}
    health: &often {interval: 1s}
  b:
    backends: ["http://b:1"]
    timeouts: {<<: *slow, connect: 2s}
    health: *often
models: {m: {pool: a}, n: {pool: b}}
"""
    )
    assert (config.pools["b"].timeouts.total, config.pools["b"].timeouts.connect) == (9, 2)
    assert config.pools["b"].health.interval == 1


def test_of_several_merges_the_first_wins():
    config = parse(
        "pools: {a: {backends: ['http://a:1'], health: &x {timeout: 1s}, retry: {attempts: 2}},\n"
        "  b: {backends: ['http://b:1'], health: {<<: [*x, &y {timeout: 3s, interval: 4s}]}}}\n"
        "models: {m: {pool: a}, n: {pool: b}}\n"
    )
    assert (config.pools["b"].health.timeout, config.pools["b"].health.interval) == (1, 4)


def test_a_merge_of_something_else_is_refused(errors_of):
    assert "1: server: << takes a mapping, or a list of mappings" in errors_of("server: {<<: 3}\n" + MINIMAL)


def test_an_error_behind_an_alias_is_reported_where_it_is_written(errors_of):
    text = (
        "pools:\n  a:\n    backends: ['http://a:1']\n    health: &h\n      interval: never\n"
        "  b:\n    backends: ['http://b:1']\n    health: *h\nmodels: {m: {pool: a}, n: {pool: b}}\n"
    )
    first, second = errors_of(text)
    assert first.startswith("5: pools.a.health.interval: 'never' is not a duration")
    assert second.startswith("5: pools.b.health.interval: 'never' is not a duration")


def test_aliases_that_multiply_are_refused_before_they_do(errors_of):
    # Expanded, these would be 9**30 nodes: that there is an answer at all shows that they were not.
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * 9) + "]" for n in range(1, 30)]
    [error] = errors_of("\n".join(lines))
    assert error.endswith(": aliases make the configuration too large")


def test_merges_that_multiply_are_refused(errors_of):
    pairs = ", ".join(f"k{n}: {'v' * 500}" for n in range(100))
    text = f"base: &b {{{pairs}}}\n" + "".join(f"m{n}: {{<<: *b}}\n" for n in range(500))
    [error] = errors_of(text)
    assert error.endswith("aliases make the configuration too large")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("off", "off"),
        ("no", "no"),
        ("yes", "yes"),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("12", 12),
        ("-3", -3),
        ("0x1F", 31),
        ("0o17", 15),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("2024-01-01", "2024-01-01"),
        ("9" * 5000, "9" * 5000),
        (".inf", float("inf")),
    ],
)
def test_plain_scalars_follow_yaml_1_2(text, value):
    found = core_value(text)
    assert found == value
    assert type(found) is type(value)


def test_off_is_text():
    assert parse("logging: {access: off}\n" + MINIMAL).logging.access == "off"


def test_quotes_make_text(errors_of):
    assert parse('models: {m: {pool: main, rewrite: "4"}}\n' + MINIMAL).models["m"].rewrite == "4"
    assert errors_of("models: {m: {pool: main, rewrite: 4}}\n" + MINIMAL) == [
        "1: models.m.rewrite: must be text (put it in quotes)"
    ]


def test_a_key_with_nothing_behind_it_counts_as_absent():
    config = parse("server:\n  # port: 9\nadmin:\nmodels:\nroutes:\n" + MINIMAL)
    assert config == parse(MINIMAL)


def test_a_file_with_a_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + MINIMAL.encode())
    assert load(path) == parse(MINIMAL)


def test_a_file_that_is_not_utf_8_is_refused_with_its_line(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value) == f"{path}:2: not UTF-8"


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "f.yaml")
    assert str(caught.value) == f"{tmp_path / 'f.yaml'}: cannot be read: No such file or directory"


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_a_file_without_end_is_read_no_further_than_the_limit():
    with pytest.raises(ConfigError):
        load("/dev/zero")
