"""A configuration that may still be wrong in places, so that everything wrong can be said at once."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from llmproxy.config.problem import Path
from llmproxy.config.values import FileContext

S = TypeVar("S", bound=BaseModel)


class Draft:
    """Plain data, looked at in parts: each part that is valid by itself can be checked against the others."""

    def __init__(self, data: Any, context: FileContext) -> None:
        self._data = data
        self._context = context

    def raw(self, path: Path) -> Any:
        """What stands at `path`, unchecked; None when nothing does."""
        value = self._data
        for part in path:
            if isinstance(part, str) and isinstance(value, Mapping):
                value = value.get(part)
            elif isinstance(part, int) and isinstance(value, list) and part < len(value):
                value = value[part]
            else:
                return None
        return value

    def part(self, kind: type[S], path: Path) -> S | None:
        """The section at `path`, with its defaults; None when it is not valid (which is reported elsewhere)."""
        value = self.raw(path)
        try:
            return kind.model_validate({} if value is None else value, context=self._context)
        except ValidationError:
            return None

    def entries(self, path: Path) -> list[Path]:
        """The paths of the entries of a mapping or a list."""
        value = self.raw(path)
        if isinstance(value, Mapping):
            return [(*path, key) for key in value]
        return [(*path, index) for index in range(len(value))] if isinstance(value, list) else []
