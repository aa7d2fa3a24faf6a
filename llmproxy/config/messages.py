"""What pydantic found, in the words of the file's author: "must be at least 1", "unknown key; did you mean ...?"."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from pydantic import BaseModel, ValidationError

from llmproxy.config.problem import Path
from llmproxy.config.shape import keys_at

_MOST = 200
"""Errors explained of one file; the rest would be read by nobody."""

_FIXED = {
    "missing": "is required",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number, and not as large",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping (key: value)",
    "model_type": "must be a mapping (key: value)",
    "model_attributes_type": "must be a mapping (key: value)",
    "string_too_short": "must not be empty",
    "too_short": "needs at least one entry",
}
_WITH_BOUND = {
    "literal_error": ("must be one of {}", "expected"),
    "greater_than": ("must be more than {}", "gt"),
    "greater_than_equal": ("must be at least {}", "ge"),
    "less_than": ("must be less than {}", "lt"),
    "less_than_equal": ("must be at most {}", "le"),
    "string_pattern_mismatch": ("must match {}", "pattern"),
}


def explain(error: ValidationError, root: type[BaseModel]) -> Iterator[tuple[Path, str]]:
    """The path and the message of each error. Messages hold no value, unless our own validators put it in."""
    for item in islice(error.errors(include_url=False), _MOST):
        if item["type"] == "too_short" and item["input"]:
            continue  # it has entries, all of them wrong, and each said so
        path: Path = item["loc"]
        if path and path[-1] == "[key]":
            path = path[:-1]
        yield path, _message(item, path, root)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ "; did you mean `x`?", or nothing when no known word is close."""
    close = difflib.get_close_matches(word, list(known), n=1) if len(word) <= 100 else []
    return f"; did you mean `{close[0]}`?" if close else ""


def _message(item: Mapping[str, Any], path: Path, root: type[BaseModel]) -> str:
    kind, context = item["type"], item.get("ctx", {})
    if kind == "extra_forbidden":
        known = keys_at(root, path[:-1])
        hint = did_you_mean(str(path[-1]), known)
        return f"unknown key{hint}" if hint or not known else f"unknown key; the keys here are {', '.join(known)}"
    if kind == "value_error":
        return str(context["error"])
    if kind == "string_type":
        quotes = isinstance(item["input"], (bool, int, float))
        return "must be text (put it in quotes)" if quotes else "must be text"
    if kind in _WITH_BOUND:
        text, key = _WITH_BOUND[kind]
        bound = context[key]
        return text.format(f"{bound:g}" if isinstance(bound, float) else bound)
    return _FIXED.get(kind) or str(item["msg"]).replace("Input should", "must")
