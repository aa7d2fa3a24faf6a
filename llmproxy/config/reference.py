"""docs/configuration.md, made from the model: `python -m llmproxy.config.reference > docs/configuration.md`."""

import sys
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from llmproxy.config.manual import INTRO, SECTIONS
from llmproxy.config.model import Config, PolicyConfig
from llmproxy.config.quota import parse_count
from llmproxy.config.scaling import ScalingPolicyConfig
from llmproxy.config.shape import section_of
from llmproxy.config.units import format_duration, format_size, parse_duration, parse_ratio, parse_size


def reference_page() -> str:
    """The whole page, in Markdown."""
    parts = [INTRO]
    for name, field in Config.model_fields.items():
        section = section_of(field.annotation)
        assert section is not None, f"{name} is no section"
        parts.append(f"## {name}\n\n{field.description}\n\n{SECTIONS.get(name, '')}{_table(section)}")
        parts.extend(_subsections(section, name + _entry(field.annotation)))
    return "\n".join(parts)


def _subsections(section: type[BaseModel], path: str) -> Iterator[str]:
    for name, field in section.model_fields.items():
        inner = section_of(field.annotation)
        if inner is not None and not _is_free(inner):
            below = f"{path}.{name}{_entry(field.annotation)}"
            yield f"### {below}\n\n{field.description}\n\n{_table(inner)}"
            yield from _subsections(inner, below)


def _entry(annotation: Any) -> str:
    """What stands between a list's or a mapping's key and the keys of its entries."""
    return _by_container(annotation, mapping=".NAME", items="[]", single="")


def _by_container(annotation: Any, *, mapping: str, items: str, single: str) -> str:
    origin = get_origin(annotation)
    return mapping if origin is dict else items if origin is tuple else single


def _table(section: type[BaseModel]) -> str:
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, field in section.model_fields.items():
        cells = (f"`{name}`", _kind(field), _default(field), field.description or "")
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows) + "\n"


def _kind(field: FieldInfo) -> str:
    unit = _unit(field)
    if unit is not None:
        return unit
    section = section_of(field.annotation)
    if section is not None:
        whole = _by_container(field.annotation, mapping="mapping", items="list", single="section")
        return (
            f"{whole} of names or mappings"
            if whole == "list" and _is_free(section)
            else ("name or mapping" if _is_free(section) else whole)
        )
    options = [item for item in get_args(field.annotation) if item is not type(None)] or [field.annotation]
    if get_origin(field.annotation) is Literal:
        return " or ".join(f"`{option}`" for option in options)
    if get_origin(field.annotation) is tuple:
        return "list of shares" if _unit_of_items(field) else "list of text"
    if get_origin(field.annotation) is dict:
        return "mapping of text"
    return {bool: "boolean", int: "integer", float: "number"}.get(options[0], "text") + _bounds(field)


def _bounds(field: FieldInfo) -> str:
    bounds = {key: getattr(item, key) for item in field.metadata for key in ("ge", "gt", "le") if hasattr(item, key)}
    if "ge" in bounds and "le" in bounds:
        return f", {bounds['ge']} to {bounds['le']}"
    if "ge" in bounds:
        return f", at least {bounds['ge']}"
    return f", more than {bounds['gt']}" if "gt" in bounds else ""


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    if field.is_required() or value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel):
        return f"`{value.name}`" if isinstance(value, PolicyConfig) else "see below"
    if value is None or value in ("", (), {}):
        return "none"
    unit = _unit(field)
    if unit == "duration":
        return f"`{format_duration(value)}`"
    if unit == "size":
        return f"`{format_size(value)}`"
    return (
        f"`{str(value).lower()}`" if isinstance(value, bool) else f"`{value:g}`" if _is_number(value) else f"`{value}`"
    )


def _unit_of_items(field: FieldInfo) -> bool:
    """Whether a list is one of shares."""
    items = get_args(get_args(field.annotation)[0]) if get_args(field.annotation) else ()
    return bool(items)


def _is_number(value: Any) -> bool:
    return isinstance(value, float)


def _unit(field: FieldInfo) -> str | None:
    units = {parse_duration: "duration", parse_size: "size", parse_ratio: "share", parse_count: "count"}
    return next((units[item.func] for item in field.metadata if getattr(item, "func", None) in units), None)


def _is_free(section: type[BaseModel]) -> bool:
    """Whether its keys are for someone else to know."""
    return issubclass(section, (PolicyConfig, ScalingPolicyConfig))


if __name__ == "__main__":
    sys.stdout.write(reference_page())
