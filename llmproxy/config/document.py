"""YAML text -> a tree of nodes that know their lines.

Only the data language is read: mappings, lists, scalars, anchors, aliases and `<<` merges. Scalars follow YAML 1.2's
core schema, so `off` and `no` are text, not False. Depth, file size and what aliases expand to are bounded, and a key
given twice is a problem instead of a silent last-one-wins.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from llmproxy.config.problem import Path

FILE_MAX_BYTES = 1024**2
_MAX_DEPTH = 40
_MAX_EXPANDED = 4 * 1024**2
"""Characters, plus a flat rate a node, after every alias was replaced by what it stands for."""
_NODE_WEIGHT = 16


@dataclass(slots=True, eq=False)
class Scalar:
    line: int
    text: str
    plain: bool
    """Neither quoted nor a block: may be a number, a boolean or null."""
    weight: int = 0


@dataclass(slots=True, eq=False)
class Items:
    line: int
    items: list["Node"] = field(default_factory=list)
    weight: int = _NODE_WEIGHT


@dataclass(slots=True, eq=False)
class Entries:
    line: int
    entries: dict[str, "Node"] = field(default_factory=dict)
    key_lines: dict[str, int] = field(default_factory=dict)
    weight: int = _NODE_WEIGHT


Node = Scalar | Items | Entries
Report = Callable[[int, Path, str], None]
"""Called with the line, the path and what is wrong."""


class Unreadable(Exception):
    """The text is no YAML that can be read on from here."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


def read_document(text: str, report: Report) -> Node:
    """The tree of the one document in `text`. Raises Unreadable; what can be skipped over goes to `report`."""
    if len(text) > FILE_MAX_BYTES:
        raise Unreadable(1, f"the file is larger than {FILE_MAX_BYTES} bytes")
    loader = None
    try:
        loader = yaml.SafeLoader(text)
        return _Builder(loader, report).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        context = f" ({error.context})" if error.context else ""
        raise Unreadable(mark.line + 1 if mark else 1, f"not YAML: {error.problem}{context}") from None
    except yaml.reader.ReaderError as error:
        raise Unreadable(text.count("\n", 0, error.position) + 1, "not YAML: a control character") from None
    except (ValueError, OverflowError):  # PyYAML on escapes beyond Unicode and on absurd version numbers
        line = loader.line + 1 if loader is not None else 1
        raise Unreadable(line, "not YAML: an escape or a number is out of range") from None


def place_of(root: Node, path: Path) -> tuple[int, Path]:
    """The line of `path`, and how far it could be followed: a value given in short form has no children."""
    node, line = root, root.line
    for index, part in enumerate(path):
        if isinstance(node, Entries) and isinstance(part, str) and part in node.entries:
            line, node = node.key_lines[part], node.entries[part]
        elif isinstance(node, Items) and isinstance(part, int) and part < len(node.items):
            node = node.items[part]
            line = node.line
        else:
            return line, path[:index] if isinstance(node, Scalar) else path
    return line, path


class _Builder:
    """Pulls events and builds nodes; an alias is the same node again, weighed as often as it is used."""

    def __init__(self, loader: yaml.SafeLoader, report: Report) -> None:
        self._loader: Any = loader  # its stubs leave these methods untyped
        self._report = report
        self._anchors: dict[str, Node | None] = {}

    def document(self) -> Node:
        self._loader.get_event()  # the stream's start
        if self._loader.check_event(yaml.StreamEndEvent):
            raise Unreadable(1, "the file is empty")
        self._loader.get_event()  # the document's start
        root = self._node((), 0)
        self._loader.get_event()  # the document's end
        if not self._loader.check_event(yaml.StreamEndEvent):
            raise Unreadable(
                self._loader.peek_event().start_mark.line + 1, "a second document; one file is one document"
            )
        return root

    def _node(self, path: Path, depth: int) -> Node:
        event = self._loader.get_event()
        line: int = event.start_mark.line + 1
        if depth > _MAX_DEPTH:
            raise Unreadable(line, f"nested more than {_MAX_DEPTH} deep")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(str(event.anchor), line)
        anchor, tag = event.anchor, event.tag
        if anchor is not None:
            self._anchors[anchor] = None  # not complete: an alias inside its own anchor finds this
        if tag not in (None, "!", "tag:yaml.org,2002:str"):
            self._report(line, path, "tags are not supported: write the plain value")
        node: Node
        if isinstance(event, yaml.ScalarEvent):
            node = self._scalar(event, line, path)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._items(Items(line), path, depth)
        else:
            node = self._entries(Entries(line), path, depth)
        if node.weight > _MAX_EXPANDED:
            raise Unreadable(line, "aliases make the configuration too large")
        if anchor is not None:
            self._anchors[anchor] = node
        return node

    def _alias(self, anchor: str, line: int) -> Node:
        if anchor not in self._anchors:
            raise Unreadable(line, f"not YAML: nothing is called &{anchor} before *{anchor}")
        node = self._anchors[anchor]
        if node is None:
            raise Unreadable(line, f"*{anchor} is inside of what it stands for")
        return node

    def _scalar(self, event: yaml.ScalarEvent, line: int, path: Path) -> Scalar:
        text: str = event.value
        if any("\ud800" <= char <= "\udfff" for char in text):
            self._report(line, path, "half a surrogate pair is no character")
            text = ""
        plain = event.tag is None and bool(event.implicit[0])
        return Scalar(line, text, plain, _NODE_WEIGHT + len(text))

    def _items(self, node: Items, path: Path, depth: int) -> Items:
        while not self._loader.check_event(yaml.SequenceEndEvent):
            item = self._node((*path, len(node.items)), depth + 1)
            node.items.append(item)
            node.weight += item.weight
        self._loader.get_event()
        return node

    def _entries(self, node: Entries, path: Path, depth: int) -> Entries:
        merges: list[tuple[int, Node]] = []
        while not self._loader.check_event(yaml.MappingEndEvent):
            key = self._node(path, depth + 1)
            if not isinstance(key, Scalar):
                self._report(key.line, path, "a key must be plain text")
                self._node(path, depth + 1)
                continue
            value = self._node((*path, key.text), depth + 1)
            if key.text == "<<" and key.plain:
                merges.append((key.line, value))
            elif key.text in node.entries:
                first = node.key_lines[key.text]
                self._report(key.line, (*path, key.text), f"given twice (first on line {first})")
            else:
                node.entries[key.text] = value
                node.key_lines[key.text] = key.line
                node.weight += key.weight + value.weight
        self._loader.get_event()
        for line, value in merges:
            self._merge(node, value, line, path)
        return node

    def _merge(self, node: Entries, value: Node, line: int, path: Path) -> None:
        """`<<: *defaults` or `<<: [*a, *b]`: keys that are not there yet; the earlier source wins."""
        for source in value.items if isinstance(value, Items) else [value]:
            if not isinstance(source, Entries):
                self._report(line, path, "<< takes a mapping, or a list of mappings")
                continue
            for key, item in source.entries.items():
                if key not in node.entries:
                    node.entries[key] = item
                    node.key_lines[key] = source.key_lines[key]
                    node.weight += _NODE_WEIGHT + len(key) + item.weight
