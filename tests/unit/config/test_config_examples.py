"""Every file in config/ loads, warns of nothing, fits the JSON Schema; together they show what they promise."""

import json
import re
import shutil
from pathlib import Path
from typing import get_origin

import pytest
import yaml
from pydantic import BaseModel

from llmproxy.config import Config, load
from llmproxy.config.reference import reference_page
from llmproxy.config.schema import json_schema
from llmproxy.config.shape import section_of
from llmproxy.control.reload import RESTART_ONLY
from llmproxy.policies import check_policy
from llmproxy.policy.routing.registry import names

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "config").glob("*.yaml"))
ENV = {"LLMPROXY_ADMIN_TOKEN": "a-token", "VLLM_KEY": "a-key", "DEV_KEY": "dev-key", "REDIS_PASSWORD": "p"}


@pytest.fixture
def beside(tmp_path, tls):
    """A folder with the files that examples name."""
    shutil.copy(tls / "server.crt", tmp_path / "tls.crt")
    shutil.copy(tls / "server.key", tmp_path / "tls.key")
    shutil.copy(tls / "server.crt", tmp_path / "engines-ca.crt")
    (tmp_path / "vllm-key.txt").write_text("the-key\n")
    (tmp_path / "client-key.txt").write_text("a-clients-key\n")
    (tmp_path / "jwks.json").write_text('{"keys": []}')
    shutil.copy(ROOT / "config" / "warm-up.jsonl", tmp_path)
    return tmp_path


def test_the_examples_are_there():
    found = {path.stem for path in EXAMPLES}
    assert found >= {"minimal", "full", "tls", "aliases", "session-affinity", "weighted", "multiple-pools"}
    assert found >= {"limits-and-timeouts", "retries-and-breaker", "trusted-proxies-cors", "upstream-key", "dns"}
    assert found >= {"keys", "jwt", "tiers", "redis"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_loads_without_a_warning(path, beside):
    warnings = []
    shutil.copy(path, beside)
    config = load(beside / path.name, env=ENV, check_policy=check_policy, on_warning=warnings.append)
    assert config.pools
    assert warnings == []


def test_an_example_means_what_it_says(beside):
    def example(name):
        shutil.copy(ROOT / "config" / name, beside)
        return load(beside / name, env=ENV, check_policy=check_policy)

    assert example("upstream-key.yaml").pools["private"].upstream_key == "the-key"
    assert example("upstream-key.yaml").pools["hosted"].upstream_key == ""
    assert example("aliases.yaml").models["gpt-4o"].rewrite == "llama-3-8b"
    assert example("multiple-pools.yaml").pools["qwen"].timeouts.first_byte == 600
    assert example("multiple-pools.yaml").pools["qwen"].timeouts.total == 1200
    assert example("retries-and-breaker.yaml").pools["main"].retry.budget == 0.1
    assert example("tls.yaml").server.tls.cert == str(beside / "tls.crt")


def keys_missing(section: type[BaseModel], written, path):
    """The keys of `section` that no entry of `written` (one or several mappings) has, all the way down."""
    entries = [entry for entry in written if isinstance(entry, dict)]
    for name, field in section.model_fields.items():
        values = [entry[name] for entry in entries if name in entry]
        if not values:
            yield f"{path}.{name}"
            continue
        inner = section_of(field.annotation)
        if inner is None or "options" in inner.model_fields:
            continue
        if get_origin(field.annotation) is dict:
            values = [item for value in values for item in value.values()]
        elif isinstance(values[0], list):
            values = [item for value in values for item in value]
        yield from keys_missing(inner, values, f"{path}.{name}")


def test_the_full_example_has_every_key():
    written = yaml.safe_load((ROOT / "config" / "full.yaml").read_text())
    assert list(keys_missing(Config, [written], "")) == []


def test_the_full_example_names_every_policy_of_ours():
    text = (ROOT / "config" / "full.yaml").read_text() + (ROOT / "docs" / "configuration.md").read_text()
    assert [name for name in names() if text.count(name) < 2] == []


# -- the manual --------------------------------------------------------------------------------------------------------


def test_the_committed_manual_is_the_current_one():
    """Red? Run `python -m llmproxy.config.reference > docs/configuration.md`."""
    assert (ROOT / "docs" / "configuration.md").read_text() == reference_page()


def test_the_manual_shows_units_bounds_and_required_keys():
    page = reference_page()
    assert "| `drain_timeout` | duration | `30s` |" in page
    assert "| `body` | size | `32MiB` |" in page
    assert "| `budget` | share | `0.2` |" in page
    assert "| `attempts` | integer, 1 to 10 | `3` |" in page
    assert "| `url` | text | required |" in page
    assert "| `access` | `json` or `off` | `json` |" in page
    assert "| `policy` | name or mapping | `least_connections` |" in page


def test_the_manual_describes_every_key():
    rows = [line for line in reference_page().splitlines() if line.startswith("| `") and " | " in line]
    assert all(line.split(" | ")[-1].removesuffix(" |").strip() for line in rows)


def test_the_manual_says_what_needs_a_restart():
    assert [name for name in RESTART_ONLY if f"`{name}`" not in reference_page()] == []


def test_the_examples_in_the_manual_are_valid(tmp_path, tls):
    blocks = re.findall(r"```yaml\n(.*?)```", reference_page(), re.DOTALL)
    assert len(blocks) >= 5
    shutil.copy(tls / "server.crt", tmp_path / "tls.crt")
    shutil.copy(tls / "server.key", tmp_path / "tls.key")
    for block in blocks:
        text = re.sub(r"\$\{file:[^}]*\}", "x", block)
        if "models:" in text or "routes:" in text:
            text += 'pools: {llama: {backends: ["http://a"]}, vectors: {backends: ["http://b"]}}\n'
        elif "pools:" not in text:
            text += 'pools: {main: {backends: ["http://a"]}}\n'
        (tmp_path / "f.yaml").write_text(text)
        load(tmp_path / "f.yaml", env=ENV, check_policy=check_policy)


# -- the schema --------------------------------------------------------------------------------------------------------


def fits(value, schema, root):
    """Whether `value` is valid: the part of JSON Schema that ours uses, and nothing silently ignored."""
    known = {"$schema", "$defs", "title", "description", "default", "examples", "$ref", "anyOf", "type", "enum"}
    known |= {"pattern", "minimum", "maximum", "exclusiveMinimum", "minLength", "minItems", "minProperties"}
    known |= {"maxLength", "items", "properties", "patternProperties", "additionalProperties", "required"}
    assert schema.keys() <= known, schema.keys() - known
    if "$ref" in schema and not fits(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root):
        return False
    if "anyOf" in schema and not any(fits(value, option, root) for option in schema["anyOf"]):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    kinds = schema.get("type", [])
    if kinds and not any(is_a(value, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)):
        return False
    if isinstance(value, str):
        within = schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value))
        return within and bool(re.search(schema.get("pattern", ""), value))
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        above = value > schema.get("exclusiveMinimum", float("-inf"))
        return above and schema.get("minimum", value) <= value <= schema.get("maximum", value)
    if isinstance(value, list):
        return len(value) >= schema.get("minItems", 0) and all(
            fits(item, schema.get("items", {}), root) for item in value
        )
    if isinstance(value, dict):
        return len(value) >= schema.get("minProperties", 0) and all_fit(value, schema, root)
    return True


def is_a(value, kind):
    if isinstance(value, bool):
        return kind == "boolean"
    types = {"string": str, "integer": int, "number": (int, float), "array": list, "object": dict, "null": type(None)}
    return kind in types and isinstance(value, types[kind])


def all_fit(value, schema, root):
    if not value.keys() >= set(schema.get("required", ())):
        return False
    for key, item in value.items():
        if key in schema.get("properties", {}):
            under = schema["properties"][key]
        else:
            patterns = schema.get("patternProperties", {}).items()
            found = [part for pattern, part in patterns if re.search(pattern, key)]
            under = found[0] if found else schema.get("additionalProperties", True)
        if under is False or (under is not True and not fits(item, under, root)):
            return False
    return True


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_fits_the_schema(path):
    schema = json_schema(names())
    assert fits(yaml.safe_load(path.read_text()), schema, schema)


BACKEND = {"backends": ["http://a"]}


@pytest.mark.parametrize(
    ("change", "valid"),
    [
        ({}, True),
        ({"server": None}, True),
        ({"server": {"port": "${PORT}", "drain_timeout": 5, "limits": {"body": 1024, "header": "1KiB"}}}, True),
        ({"server": {"drain_timeout": "${DRAIN:-5s}", "reveal_backend": "${REVEAL}"}}, True),
        ({"pools": {"p": {**BACKEND, "policy": "mine"}}}, True),
        ({"pools": {"p": {**BACKEND, "policy": {"name": "mine", "x": [1]}}}}, True),
        ({"pools": {"p": {"backends": [{"url": "http://a", "weight": "${W}"}, "${URL}"]}}}, True),
        ({"pools": {"p": {**BACKEND, "retry": {"budget": "20%"}, "timeouts": {"total": "1m30s"}}}}, True),
        ({"sever": {}}, False),
        ({"pools": {}}, False),
        ({"pools": {"a b": BACKEND}}, False),
        ({"pools": {"p": {}}}, False),
        ({"pools": {"p": {"backends": []}}}, False),
        ({"pools": {"p": {"backends": ["ftp://a"]}}}, False),
        ({"pools": {"p": {"backends": [{"uri": "http://a"}]}}}, False),
        ({"pools": {"p": {"backends": [{"url": "http://a", "weight": 0}]}}}, False),
        ({"pools": {"p": {**BACKEND, "timeouts": {"total": "soon"}}}}, False),
        ({"server": {"port": "x"}}, False),
        ({"server": {"port": 70000}}, False),
        ({"server": {"limits": {"body": "32 apples"}}}, False),
        ({"logging": {"level": "loud"}}, False),
        ({"models": {"m": {"rewrite": "x"}}}, False),
    ],
)
def test_the_schema_tells_right_from_wrong(change, valid):
    schema = json_schema()
    assert fits({"pools": {"p": BACKEND}} | change, schema, schema) is valid


def test_the_schema_offers_policies_and_defaults_with_units():
    schema = json_schema(["random", "mine"])
    assert '"enum": ["random", "mine"]' in json.dumps(schema)
    pool = schema["$defs"]["PoolTimeouts"]["properties"]
    assert pool["first_byte"]["default"] == "300s"
    assert schema["$defs"]["LimitsConfig"]["properties"]["body"]["default"] == "32MiB"
    assert all("description" in part for part in pool.values())
