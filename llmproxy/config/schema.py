"""The JSON Schema of the file, for editors: completion, descriptions on hover, unknown keys underlined.

Made from the model, then loosened to what the loader takes besides it: a backend as a bare URL, a policy as a bare
name with its options beside it, `${NAME}` in place of any number or choice, and keys with nothing behind them.
"""

from collections.abc import Sequence
from typing import Any

from llmproxy.config.model import Config
from llmproxy.config.units import DURATION_PATTERN, format_duration, format_size

_TEMPLATE = {"type": "string", "pattern": r"\$\{"}
_FREE_TEXT = {"type", "minLength"}
"""A string with nothing but these takes a template as it is."""


def json_schema(policies: Sequence[str] = ()) -> dict[str, Any]:
    """The schema (draft 2020-12). `policies` are the names to offer for `policy`; others stay allowed."""
    schema = Config.model_json_schema()
    parts = schema["$defs"]
    for part in (schema, *parts.values()):
        required = part.get("required", [])
        part["properties"] = {
            key: _loosened(value, nullable=key not in required) for key, value in part["properties"].items()
        }
    parts["BackendConfig"] = _or_text(parts["BackendConfig"], {"type": "string", "pattern": r"^https?://|\$\{"})
    parts["AuthConfig"] = _or_text(parts["AuthConfig"], {"enum": ["none"]})
    pool = parts["PoolConfig"]
    pool["properties"]["backends"]["anyOf"][0]["minItems"] = 1
    pool["anyOf"] = [{"required": [key]} for key in ("backends", "scaling", "discovery")]
    parts["ScalingPolicyConfig"] = _or_text(_one_key(parts["ScalingPolicyConfig"]), {"type": "string"})
    parts["ActuatorConfig"] = _or_text(parts["ActuatorConfig"], {"type": "string", "enum": ["dry_run"]})
    parts["WarmUpConfig"] = _or_text(parts["WarmUpConfig"], {"type": "string"})
    parts["PolicyConfig"] = _policy(parts["PolicyConfig"], policies)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "llmproxy configuration",
        **{key: value for key, value in schema.items() if key != "title"},
    }


def _policy(part: dict[str, Any], policies: Sequence[str]) -> dict[str, Any]:
    names = {"anyOf": [{"enum": list(policies)}, {"type": "string"}]} if policies else {"type": "string"}
    name = {**names, "description": part["properties"]["name"]["description"]}
    return _or_text(
        {**part, "properties": {**part["properties"], "name": name}, "additionalProperties": True},
        {**names, "description": "The name of a routing policy, with its default options."},
    )


def _one_key(part: dict[str, Any]) -> dict[str, Any]:
    """A scaling policy: its name is the key of its options."""
    loose = {key: value for key, value in part.items() if key not in ("required", "additionalProperties")}
    return {**loose, "additionalProperties": True, "minProperties": 1}


def _or_text(part: dict[str, Any], text: dict[str, Any]) -> dict[str, Any]:
    return {"description": part.get("description", ""), "anyOf": [text, part]}


def _loosened(value: dict[str, Any], *, nullable: bool) -> dict[str, Any]:
    """`value`, or a template where text would not do, or nothing."""
    shown: dict[str, Any] = {key: value[key] for key in ("description", "examples") if key in value}
    options = [option for option in value.get("anyOf", [value]) if option != {"type": "null"}]
    if value.get("default") is not None and "$ref" not in value:
        shown["default"] = _default(value["default"], options[0].get("type"), options[0].get("pattern"))
    options = [_bare(option) for option in options]
    if any(_needs_template(option) for option in options):
        options.append(_TEMPLATE)
    if nullable:
        options.append({"type": "null"})
    return {**shown, **options[0]} if len(options) == 1 else {**shown, "anyOf": options}


def _bare(option: dict[str, Any]) -> dict[str, Any]:
    option = {key: item for key, item in option.items() if key not in ("title", "description", "default", "examples")}
    for key in ("items", "additionalProperties"):
        if isinstance(option.get(key), dict):
            option[key] = _loosened(option[key], nullable=False)
    if "patternProperties" in option:
        option["additionalProperties"] = False
    return option


def _default(value: Any, kind: Any, pattern: str | None) -> Any:
    """With its unit, as one would write it."""
    if kind == ["string", "number"] and pattern == DURATION_PATTERN:
        return format_duration(value)
    return format_size(value) if kind == ["string", "integer"] else value


def _needs_template(option: dict[str, Any]) -> bool:
    kind = option.get("type")
    if kind in ("integer", "number", "boolean") or "enum" in option or isinstance(kind, list):
        return True
    return kind == "string" and not option.keys() <= _FREE_TEXT
