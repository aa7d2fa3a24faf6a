"""setuptools' build backend, which asks for the compiler only when `LLMPROXY_COMPILE=1` wants it."""

import os
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403

COMPILER = ["mypy>=1.13", "pydantic>=2.8", "msgspec>=0.19", "types-PyYAML"]


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """What building a wheel needs besides setuptools."""
    # setuptools runs setup.py to answer, when the compiler is not there yet.
    wanted = os.environ.pop("LLMPROXY_COMPILE", None)
    try:
        needed: list[str] = build_meta.get_requires_for_build_wheel(config_settings)
    finally:
        if wanted is not None:
            os.environ["LLMPROXY_COMPILE"] = wanted
    return needed + (COMPILER if wanted == "1" else [])
