"""A policy's options: plain values from the configuration, checked and made into the policy's own frozen dataclass."""

import math
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_args, get_type_hints

from llmproxy.core.registry import NoOptions, OptionError, suggestion

__all__ = ["NoOptions", "OptionError", "parse_options", "suggestion"]

T = TypeVar("T")

_WHOLE = re.compile(r"[-+]?[0-9]{1,18}")
_NUMBER = re.compile(r"[-+]?(\.[0-9]{1,40}|[0-9]{1,40}(\.[0-9]{0,40})?)([eE][-+]?[0-9]{1,3})?")
_TRUTH = {"true": True, "false": False}


def parse_options(options_type: type[T], given: Mapping[str, object], policy: str) -> T:
    """`given` as an `options_type`, a dataclass whose fields are bool, int, float, str or tuple[str, ...].

    A single string will do for a tuple. So will text that reads as a number, or as true or false, where that is wanted:
    what comes from the environment is always text. The dataclass checks ranges in `__post_init__` with `ValueError`.
    Raises `OptionError`.
    """
    if not is_dataclass(options_type):
        raise TypeError(f"options_type of routing policy {policy} must be a dataclass")
    hints = get_type_hints(options_type)
    known = {field.name: hints[field.name] for field in fields(options_type) if field.init}
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            raise OptionError(f"routing policy {policy} has no option {name!r}{suggestion(name, known)}", name)
        try:
            values[name] = _fit(value, known[name])
        except ValueError as error:
            raise OptionError(f"routing policy {policy}, option {name}: {error}", name) from None
    try:
        return options_type(**values)
    except (ValueError, TypeError) as error:
        raise OptionError(f"routing policy {policy}: {error}") from None


def _fit(value: object, wanted: Any) -> object:
    """`value` as a `wanted`. Raises `ValueError` in words that follow the option's name."""
    if wanted is bool:
        truth = _TRUTH.get(value.strip().lower()) if isinstance(value, str) else value
        if isinstance(truth, bool):
            return truth
        raise ValueError(f"{value!r} must be true or false")
    if wanted is int:
        whole = _read(value, _WHOLE)
        if isinstance(whole, int) and not isinstance(whole, bool):
            return whole
        raise ValueError(f"{value!r} must be a whole number")
    if wanted is float:
        number = _read(value, _NUMBER)
        if isinstance(number, (int, float)) and not isinstance(number, bool) and math.isfinite(number):
            return float(number)
        raise ValueError(f"{value!r} must be a number")
    if wanted is str:
        if isinstance(value, str):
            return value
        raise ValueError(f"{value!r} must be a string")
    if get_args(wanted) == (str, ...):
        items = [value] if isinstance(value, str) else value
        if isinstance(items, (list, tuple)) and all(isinstance(item, str) and item for item in items):
            return tuple(items)
        raise ValueError(f"{value!r} must be a name or a list of names")
    raise TypeError(f"options of type {wanted} are not supported")


def _read(value: object, form: re.Pattern[str]) -> object:
    """Text that has the `form` as the number it spells; everything else as it is."""
    if not isinstance(value, str) or not form.fullmatch(value.strip()):
        return value
    return int(value) if form is _WHOLE else float(value)
