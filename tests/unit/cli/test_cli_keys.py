"""`llmproxy keys`, as it is typed, on a real Redis."""

import json

import pytest
from typer.testing import CliRunner

from llmproxy.cli import app
from tests.harness.redis_server import MISSING, RedisServer, is_installed

pytestmark = pytest.mark.skipif(not is_installed(), reason=MISSING)


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def run(redis):
    redis.client().flushall()
    return lambda *words: CliRunner().invoke(app, ["keys", *words], env={"LLMPROXY_KEYS_STORE": redis.url})


def listed(run):
    return [json.loads(line) for line in run("list", "--json").stdout.splitlines()]


def test_a_key_is_shown_once(run):
    made = run("create", "acme", "--tier", "paid")
    assert made.exit_code == 0
    key = made.stdout.strip()
    assert len(key) == len("sk-llmproxy-") + 43
    for words in (("list",), ("list", "--json"), ("revoke", "acme"), ("list",)):
        result = run(*words)
        assert result.exit_code == 0
        assert key not in result.output
        assert "acme" in result.output
    assert run("create", "other", "--tier", "paid").stdout != made.stdout


def test_everything_that_can_be_said_of_a_key_is_kept(run):
    words = ("--tenant", "Acme", "--model", "llama-*", "--model", "qwen", "--expires", "90d", "--priority", "high")
    limits = ("--limit", "requests_per_minute=60", "--limit", "concurrency=2")
    assert run("create", "acme", "--tier", "paid", *words, *limits).exit_code == 0
    [key] = listed(run)
    assert (key["name"], key["tenant"], key["tier"], key["state"]) == ("acme", "Acme", "paid", "active")
    assert (key["models"], key["priority"]) == (["llama-*", "qwen"], "high")
    assert {name: size for name, size in key["limits"].items() if size} == {"requests_per_minute": 60, "concurrency": 2}
    assert key["expires_at"] - key["created_at"] == pytest.approx(90 * 86400)


def test_limits_are_written_as_in_the_configuration(run):
    words = ("--limit", "tokens_per_minute=20k", "--limit", "cost_per_day=2.5")
    assert run("create", "acme", "--tier", "paid", *words).exit_code == 0
    [key] = listed(run)
    assert {name: size for name, size in key["limits"].items() if size} == {
        "tokens_per_minute": 20_000,
        "cost_per_day": 2_500_000,
    }


def test_the_life_of_a_name(run):
    run("create", "a", "--tier", "free")
    run("rotate", "a", "--grace", "1h")
    assert [key["state"] for key in listed(run)] == ["active", "replaced"]
    run("rotate", "a")
    assert [key["state"] for key in listed(run)] == ["active", "expired", "replaced"]
    run("revoke", "a")
    assert [key["state"] for key in listed(run)] == ["revoked", "expired", "revoked"]
    assert run("create", "a", "--tier", "paid").exit_code == 0
    assert [key["tier"] for key in listed(run) if key["state"] == "active"] == ["paid"]


def test_rotating_twice_gives_the_old_key_no_more_time_than_it_had(run):
    run("create", "a", "--tier", "free", "--expires", "10s")
    run("rotate", "a", "--grace", "1h")
    ends = [key["expires_at"] for key in listed(run)]
    assert ends[1] - ends[0] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("create", "taken", "--tier", "free"), "there is a key called 'taken' already"),
        (("create", "a b", "--tier", "free"), "a name is letters, digits"),
        (("create", "a", "--tier", "free", "--priority", "urgent"), "no priority"),
        (("create", "a", "--tier", "free", "--expires", "soon"), "not a duration"),
        (("create", "a", "--tier", "free", "--expires", "2020-01-01"), "is past"),
        (("create", "a", "--tier", "free", "--limit", "rpm=5"), "write NAME=NUMBER"),
        (("create", "a", "--tier", "free", "--limit", "concurrency=x"), "write NAME=NUMBER"),
        (("create", "a", "--tier", "free", "--limit", "requests_per_minute=0"), "requests_per_minute is out of range"),
        (("create", "a", "--tier", "free", "--limit", "tokens_per_minute=99999G"), "tokens_per_minute is out of range"),
        (("create", "a", "--tier", "free", "--limit", "cost_per_day=nan"), "cost_per_day is out of range"),
        (("create", "a", "--tier", "free", "--limit", "cost_per_day=ten"), "write NAME=NUMBER"),
        (("create", "a", "--tier", "free", "--expires", "0s"), "longer than nothing"),
        (("create", "a", "--tier", "free", "--expires", "99999999d"), "shorter than a hundred years"),
        (("create", "a", "--tier", "free", "--tenant", "two\nlines"), "text of one line"),
        (("create", "a", "--tier", "free", "--model", " "), "a model's name is empty"),
        (("revoke", "nobody"), "there is no key called 'nobody'"),
        (("rotate", "nobody"), "there is no key called 'nobody'"),
        (("rotate", "taken", "--grace", "x"), "not a duration"),
        (("list", "--store", "http://x"), "must begin with redis://"),
        (("list", "--store", "redis://user:secret-word@127.0.0.1:1/0"), "cannot be asked ([Errno 111]"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(run, words, message):
    run("create", "taken", "--tier", "free")
    result = run(*words)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert "secret-word" not in result.output


def test_a_revoked_key_is_not_rotated(run):
    run("create", "a", "--tier", "free")
    run("revoke", "a")
    assert "was revoked" in run("rotate", "a").stderr
    assert "revoked already" in run("revoke", "a").stderr


def test_the_store_and_the_tiers_of_a_configuration(run, redis, tmp_path):
    config = tmp_path / "proxy.yaml"
    config.write_text(f"auth: {{store: '{redis.url}'}}\npools: {{main: {{backends: ['http://a']}}}}\n")
    assert run("create", "a", "--tier", "free", "--config", str(config), "--store", "").exit_code == 0
    assert "there is no tier 'gold'" in run("create", "b", "--tier", "gold", "--config", str(config)).stderr
    config.write_text("pools: {main: {backends: ['http://a']}}\n")
    assert "no key store" in run("list", "--config", str(config)).stderr
    config.write_text("pools: {}\n")
    assert "pools: needs at least one entry" in run("list", "--config", str(config)).stderr
