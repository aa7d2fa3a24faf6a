"""Keys, tokens and the store in the configuration: what is taken, what is refused and with which words."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from llmproxy.config import ConfigError, parse
from llmproxy.config.loader import load

SECRET = "sk-a-very-secret-key"
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()
POOLS = 'pools: {main: {backends: ["http://a"]}}\n'


def read(text: str, **options: Any) -> Any:
    return parse(text + POOLS, env=options.pop("env", {"KEY": SECRET}), **options)


def problem(text: str, **options: Any) -> str:
    with pytest.raises(ConfigError) as refused:
        read(text, **options)
    return str(refused.value)


@pytest.mark.parametrize("given", [f"sha256: {DIGEST}", f"sha256: {DIGEST.upper()}", 'value: "${KEY}"', "file: key"])
def test_a_key_becomes_its_hash_however_it_is_given(tmp_path: Path, given: str) -> None:
    (tmp_path / "key").write_text(f"{SECRET}\n")
    config = read(f"keys: [{{name: k, tier: free, {given}}}]\n", base=tmp_path)
    assert config.keys[0].digest.hex() == DIGEST
    assert config.checks_keys
    assert SECRET not in repr(config) + config.model_dump_json()


def test_a_keys_file_is_told_of_to_be_watched(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(SECRET)
    (tmp_path / "jwks.json").write_text('{"keys": []}')
    (tmp_path / "f.yaml").write_text(
        "keys: [{name: k, tier: free, file: key}]\nauth: {jwt: {issuer: i, audience: [a], jwks: jwks.json}}\n" + POOLS
    )
    seen: list[Path] = []
    first = load(tmp_path / "f.yaml", on_file=seen.append)
    assert {path.name for path in seen} == {"f.yaml", "key", "jwks.json"}
    assert load(tmp_path / "f.yaml") == first
    (tmp_path / "key").write_text(SECRET + "2")
    second = load(tmp_path / "f.yaml")
    assert second != first, "a reload must see that something changed"
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [{}]}))
    assert load(tmp_path / "f.yaml") != second


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("[{name: k, tier: free}]", "keys[0]: give the key once: as sha256, as value or as file"),
        (f"[{{name: k, tier: free, sha256: {DIGEST}, value: x}}]", "give the key once"),
        ("[{name: k, tier: free, sha256: abc}]", "keys[0].sha256: must match"),
        ('[{name: k, tier: free, value: "a b"}]', "printable ASCII without blanks"),
        ("[{name: k, tier: free, value: schlüssel}]", "printable ASCII"),
        ("[{name: k, tier: free, file: nowhere}]", "keys[0].file: there is no file"),
        ("[{name: k, tier: free, file: empty}]", "printable ASCII"),
        ("[{name: k, tier: free, file: image}]", "file cannot be read"),
        ("[{name: a b, tier: free, value: x}]", "keys[0].name: must match"),
        ("[{name: k, value: x}]", "keys[0].tier: is required"),
        ("[{name: k, tier: fre, value: x}]", "keys[0].tier: there is no tier 'fre'; did you mean `free`?"),
        ("[{name: k, tier: free, value: x, expires: soon}]", "keys[0].expires: 'soon' is no time"),
        ("[{name: k, tier: free, value: x, priority: urgent}]", "keys[0].priority: must be one of"),
        ("[{name: k, tier: free, value: x}, {name: k, tier: free, value: y}]", "keys[1].name: there is a key called"),
        ("[{name: k, tier: free, value: x}, {name: l, tier: free, value: x}]", "keys[1]: the same key as 'k'"),
        ("[{name: k, tier: free, value: x, model: [a]}]", "did you mean `models`?"),
    ],
)
def test_what_is_wrong_with_a_key(tmp_path: Path, keys: str, message: str) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "image").write_bytes(b"\xff\xfe")
    said = problem(f"keys: {keys}\n", base=tmp_path)
    assert message in said
    assert said.startswith("<config>:1: ")


def test_messages_never_show_a_key() -> None:
    said = problem('keys: [{name: "${KEY}!", tier: "${KEY}", value: "${KEY} ", expires: "${KEY}"}]\n')
    assert "${KEY}" in said
    assert SECRET not in said


def test_when_a_key_ends() -> None:
    def at(text: str) -> float:
        found: float = read(f'keys: [{{name: k, tier: free, value: x, expires: "{text}"}}]\n').keys[0].expires_at
        return found

    assert at("2027-01-31") == datetime(2027, 1, 31, tzinfo=UTC).timestamp()
    assert at("2027-01-31T18:00:00Z") == at("2027-01-31T19:00:00+01:00") == at("2027-01-31T18:00")
    assert read("keys: [{name: k, tier: free, value: x}]\n").keys[0].expires_at is None


def test_auth_none() -> None:
    assert not read("auth: none\n").checks_keys
    assert not read("auth:\n").checks_keys
    assert read("").auth == read("auth: none\n").auth
    said = problem("auth: none\nkeys: [{name: k, tier: free, value: x}]\n")
    assert "auth: none, but there are keys" in said
    assert "must be a mapping" in problem("auth: nothing\n")


@pytest.mark.parametrize(
    ("auth", "message"),
    [
        ("{store: http://h}", "auth.store: must begin with redis://"),
        ('{store: "redis://:${KEY}@h:x/0"}', "auth.store: has no usable port"),
        ("{anonymous: fre}", "auth.anonymous: there is no tier 'fre'"),
        ("{jwt: {audience: [a]}}", "auth.jwt.issuer: is required"),
        ("{jwt: {issuer: i}}", "auth.jwt.audience: is required"),
        ("{jwt: {issuer: 'https://i', audience: []}}", "auth.jwt.audience: needs at least one entry"),
        ("{jwt: {issuer: i, audience: [a]}}", "jwks is needed"),
        ("{jwt: {issuer: i, audience: [a], jwks: nowhere.json}}", "there is no file 'nowhere.json'"),
        ("{jwt: {issuer: i, audience: [a], jwks: key}}", "is no JWK Set"),
        ("{jwt: {issuer: i, audience: [a], jwks: 'ftp://x/y'}}", "is no URL"),
        ("{jwt: {issuer: 'https://i', audience: [a], algorithms: [HS256]}}", "must be one of"),
        ("{jwt: {issuer: 'https://i', audience: [a], algorithms: [none]}}", "must be one of"),
        ("{jwt: {issuer: 'https://i', audience: [a], tier: gold}}", "auth.jwt.tier: there is no tier 'gold'"),
        ("{jwt: {issuer: 'https://i', audience: [a], claims: {tenants: x}}}", "did you mean `tenant`?"),
    ],
)
def test_what_is_wrong_with_auth(tmp_path: Path, auth: str, message: str) -> None:
    (tmp_path / "key").write_text("{}")
    said = problem(f"auth: {auth}\n", base=tmp_path)
    assert message in said
    assert SECRET not in said


@pytest.mark.parametrize(("missing", "extra"), [("jwt", "jwt"), ("cryptography", "jwt"), ("hiredis", "redis")])
def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, missing: str, extra: str) -> None:
    from importlib.util import find_spec

    for module in ("auth", "values"):
        found = f"llmproxy.config.{module}.find_spec"
        monkeypatch.setattr(found, lambda name: None if name == missing else find_spec(name))
    auth = "{store: redis://h}" if extra == "redis" else "{jwt: {issuer: 'https://i', audience: [a]}}"
    assert f"pip install 'llmproxy-gateway[{extra}]'" in problem(f"auth: {auth}\n")


def test_an_upstream_key_and_the_clients_exclude_each_other() -> None:
    text = 'pools: {main: {backends: ["http://a"], upstream_key: k, forward_authorization: true}}\n'
    with pytest.raises(ConfigError, match=r"pools.main.forward_authorization: of no use with upstream_key"):
        parse(text, env={})
