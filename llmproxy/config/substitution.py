"""`${NAME}`, `${NAME:-default}` and `${file:/path}` inside scalars, after parsing.

A value can therefore never add a key or a list item. What comes out is text, whatever it looks like; fields that are
numbers, durations or sizes read text too. `$${` stands for a literal `${`. Every value that was put in is remembered
with the template it came from, so that messages can show the template instead: it may be a secret.
"""

import re
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

from llmproxy.config.document import Entries, Items, Node, Report, Scalar
from llmproxy.config.problem import Path
from llmproxy.config.scalars import core_value
from llmproxy.config.values import OnFile

_TEMPLATE = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
_UNKNOWN = object()
_SECRET_MAX_BYTES = 64 * 1024
_ALWAYS_HIDDEN_FROM = 6
"""Characters; shorter values are hidden only where they stand quoted, or every message with an `a` would suffer."""


class Missing(Exception):
    """A template without a value. The message names the variable or file, never what it holds."""


class Substitution:
    """Turns a tree of nodes into plain data. `failed` has the paths whose value could not be had."""

    def __init__(
        self, env: Mapping[str, str], base: FilePath, report: Report, *, on_file: OnFile | None = None
    ) -> None:
        self._env = env
        self._base = base
        self._report = report
        self._on_file = on_file
        self._done: dict[int, Any] = {}
        self._hidden: dict[str, str] = {}
        self.failed: list[Path] = []

    def data(self, node: Node, path: Path = ()) -> Any:
        """Mappings, lists, text, numbers, booleans and None."""
        if isinstance(node, Entries):
            return {key: self.data(value, (*path, key)) for key, value in node.entries.items()}
        if isinstance(node, Items):
            return [self.data(item, (*path, index)) for index, item in enumerate(node.items)]
        if id(node) not in self._done:
            self._done[id(node)] = self._scalar(node, path)
        value = self._done[id(node)]
        if value is _UNKNOWN:
            self.failed.append(path)
            return "unknown"
        return value

    def hide(self, message: str) -> str:
        """`message` with every value that was put in replaced by its template."""
        for value, template in sorted(self._hidden.items(), key=lambda item: -len(item[0])):
            message = message.replace(repr(value), repr(template))
            if len(value) >= _ALWAYS_HIDDEN_FROM:
                message = message.replace(value, template).replace(repr(value)[1:-1], template)
        return message

    def _scalar(self, node: Scalar, path: Path) -> Any:
        if "${" not in node.text:
            return core_value(node.text) if node.plain else node.text
        try:
            text = _TEMPLATE.sub(self._value, node.text)
        except Missing as error:
            self._report(node.line, path, str(error))
            return _UNKNOWN
        if text:
            self._hidden[text] = node.text
        return text

    def _value(self, match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        if not match[2]:
            raise Missing("a ${ without its } (write $${ for a literal ${)")
        value = self._file(match[1][5:]) if match[1].startswith("file:") else self._variable(match[1])
        if value:
            self._hidden[value] = match[0]
        return value

    def _variable(self, inside: str) -> str:
        match = _NAME.fullmatch(inside)
        if match is None:
            raise Missing("${...} takes NAME, NAME:-default or file:PATH (write $${ for a literal ${)")
        value = self._env.get(match[1], "")
        if not value and match[2] is not None:
            return match[2]
        if match[1] not in self._env:
            raise Missing(f"the environment variable {match[1]} is not set (${{{match[1]}:-}} allows that)")
        if any("\ud800" <= char <= "\udfff" for char in value):
            raise Missing(f"the environment variable {match[1]} is not UTF-8")
        return value

    def _file(self, name: str) -> str:
        path = self._base / name
        if self._on_file is not None:
            self._on_file(path)
        try:
            if not path.is_file():
                raise Missing(f"there is no file {name!r}")
            with path.open("rb") as file:
                content = file.read(_SECRET_MAX_BYTES + 1)
            if len(content) > _SECRET_MAX_BYTES:
                raise Missing(f"the file {name!r} is larger than {_SECRET_MAX_BYTES} bytes")
            return content.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise Missing(f"the file {name!r} is not UTF-8") from None
        except (OSError, ValueError) as error:
            raise Missing(
                f"the file {name!r} cannot be read: {getattr(error, 'strerror', None) or 'bad name'}"
            ) from None
