"""Texts with a meaning of their own: names, networks, origins, paths of requests, and files.

Files are looked at only when the values come from a configuration file (validation then has a `FileContext`):
relative names are relative to that file, and what must be readable is opened once.
"""

import ipaddress
import os
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationInfo

from llmproxy.core.redis_url import parse_redis_url

OnFile = Callable[[Path], None]
"""Told of a file before it is read, there or not; of some more than once."""


@dataclass(frozen=True, slots=True)
class FileContext:
    """Handed to validation when values come from a file: the folder that relative names start from, and who wants to
    hear which files are read."""

    base: Path
    on_file: OnFile | None = None


def file_context(info: ValidationInfo) -> FileContext | None:
    """The context of this validation, or None for values made in code."""
    context: Any = info.context
    return context if isinstance(context, FileContext) else None


def _network(value: str) -> str:
    ipaddress.ip_network(value, strict=False)  # raises ValueError when it is none
    return value


def _origin(value: str) -> str:
    if value == "*":
        return value
    parts = urlsplit(value)
    if not parts.hostname or value != f"{parts.scheme}://{parts.netloc}" or "@" in parts.netloc:
        raise ValueError(f"{value!r} is not an origin: write scheme and host only, such as https://chat.example.com")
    return value


def _request_path(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError(f"{value!r} must start with /")
    if re.search(r"[?#%\s\x00-\x1f\x7f]", value) or "//" in value or re.search(r"/\.\.?(/|$)", value):
        raise ValueError(
            f"{value!r} can never match: paths are compared decoded and normalised, so write it without a query, "
            "% escapes, //, /./ or /../"
        )
    return value


def _placed(value: str, info: ValidationInfo) -> str:
    context = file_context(info)
    if context is None:
        return value
    if not value:
        raise ValueError("the name of the file is empty")
    return str(context.base / value)


def _readable(value: str, info: ValidationInfo) -> str:
    context = file_context(info)
    if context is None:
        return value
    if context.on_file is not None:
        context.on_file(Path(value))
    if not os.path.isfile(value):
        raise ValueError(f"there is no file {value!r}")
    try:
        with open(value, "rb") as file:
            file.read(1)
    except OSError as error:
        raise ValueError(f"{value!r} cannot be read: {error.strerror}") from None
    return value


def _authorities(value: str, info: ValidationInfo) -> str:
    if file_context(info) is not None:
        try:
            ssl.create_default_context(cafile=value)
        except (OSError, ValueError):
            raise ValueError(f"{value!r} holds no PEM certificate") from None
    return value


def _redis_url(value: str, info: ValidationInfo) -> str:
    if value:
        url = parse_redis_url(value)
        if find_spec("hiredis") is None:
            raise ValueError("Redis needs a package more: pip install 'llmproxy-gateway[redis]'")
        for name in url.files:
            _readable(name, info)
    return value


def _writable_place(value: str, info: ValidationInfo) -> str:
    if file_context(info) is not None and not os.path.isdir(os.path.dirname(value) or "."):
        raise ValueError(f"there is no folder {os.path.dirname(value)!r} to write it to")
    return value


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
"""A name that appears in URLs of the admin API, labels and headers."""
Network = Annotated[str, AfterValidator(_network)]
"""An address or a network in CIDR notation."""
Origin = Annotated[str, AfterValidator(_origin)]
"""What a browser sends as `Origin`, or `*`."""
RequestPath = Annotated[str, AfterValidator(_request_path)]
"""A decoded, normalised path."""
ReadableFile = Annotated[str, AfterValidator(_placed), AfterValidator(_readable)]
"""A file that must be there."""
RedisAddress = Annotated[str, AfterValidator(_redis_url)]
"""The URL of a Redis, or nothing."""
AuthoritiesFile = Annotated[ReadableFile, AfterValidator(_authorities)]
"""A PEM file of certificate authorities."""
OutputFile = Annotated[str, AfterValidator(_placed), AfterValidator(_writable_place)]
"""A file that may come to be; its folder must be there."""
