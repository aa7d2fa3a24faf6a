"""The shape of the configuration, walked by whoever describes it: messages, the reference page."""

from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from llmproxy.config.problem import Path


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section inside of `X`, `X | None`, `tuple[X, ...]` or `dict[str, X]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return next((found for found in map(section_of, args) if found is not None), None)
    if origin is tuple:
        return section_of(args[0])
    return section_of(args[1]) if origin is dict else None


def keys_at(root: type[BaseModel], path: Path) -> tuple[str, ...]:
    """The keys that may stand at `path`; empty when any may, or none."""
    section: type[BaseModel] | None = root
    names = iter(path)
    for name in names:
        field = section.model_fields.get(str(name)) if section is not None else None
        if field is None:
            return ()
        section = section_of(field.annotation)
        if get_origin(field.annotation) in (dict, tuple):
            next(names, None)  # the entry's own name, or its position
    return tuple(section.model_fields) if section is not None else ()
