"""A scaling policy's options: plain values from the configuration, checked and made into the policy's frozen dataclass.

A field's type says how it is read: bool, int, float, str, `Seconds` (a duration) or `Share` (a percentage). A field
with `metadata={"read": function}` is read by that function, which raises `ValueError` in words that follow the name.
A class whose options are no mapping (`schedule` takes a list) has a class method `parse(given) -> Self` instead.
"""

import math
from collections.abc import Mapping
from dataclasses import Field, fields, is_dataclass
from typing import Any, NewType, TypeVar, get_type_hints

from llmproxy.core.registry import NoOptions, OptionError, suggestion
from llmproxy.policy.scaling.quantities import duration_s, share

__all__ = ["NoOptions", "OptionError", "Seconds", "Share", "parse_options", "suggestion"]

T = TypeVar("T")
Seconds = NewType("Seconds", float)
Share = NewType("Share", float)


def parse_options(options_type: type[T], given: object, policy: str) -> T:
    """`given` as an `options_type`. None is no options. Raises `OptionError`."""
    own = getattr(options_type, "parse", None)
    try:
        if own is not None:
            parsed: T = own(given)
            return parsed
        if given is None:
            given = {}
        if not isinstance(given, Mapping):
            raise ValueError(f"options must be a mapping, not {given!r}")
        return options_type(**_values(options_type, given, policy))
    except OptionError:
        raise
    except (ValueError, TypeError) as error:
        raise OptionError(f"scaling policy {policy}: {error}") from None


def _values(options_type: type[Any], given: Mapping[Any, object], policy: str) -> dict[str, Any]:
    if not is_dataclass(options_type):
        raise TypeError(f"options_type of scaling policy {policy} must be a dataclass")
    hints = get_type_hints(options_type)
    known = {field.name: field for field in fields(options_type) if field.init}
    values = {}
    for name, value in given.items():
        if name not in known:
            hint = suggestion(str(name), known)
            raise OptionError(f"scaling policy {policy} has no option {name!r}{hint}", str(name))
        try:
            values[name] = _fit(value, hints[name], known[name])
        except ValueError as error:
            raise OptionError(f"scaling policy {policy}, option {name}: {error}", name) from None
    return values


def _fit(value: object, wanted: Any, field: "Field[Any]") -> object:
    read = field.metadata.get("read")
    if read is not None:
        return read(value)
    if wanted is Seconds:
        return duration_s(value)
    if wanted is Share:
        return share(value)
    if wanted is bool and isinstance(value, bool):
        return value
    if wanted is str and isinstance(value, str):
        return value
    if wanted is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if wanted is float and isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    if wanted not in kinds:
        raise TypeError(f"options of type {wanted} are not supported")
    raise ValueError(f"{value!r} must be {kinds[wanted]}")
