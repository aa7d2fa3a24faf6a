"""Builds the package: as plain Python, or with `LLMPROXY_COMPILE=1` with its hot path compiled by mypyc.

The compiled modules are the same source, type-checked and turned into C; they need a C compiler and the Python
headers when they are built, nothing when they run, and serve a request for less than half of the interpreter's CPU.
"""

import os
import sys

from setuptools import Extension, setup

HOT = {
    "llmproxy/auth": "credential gate static_keys verified",
    "llmproxy/core": "backend board buckets identity lease limits outcome pool request step",
    "llmproxy/wire": (
        "answer_head answer_sink chunks client connections deadlines downstream fields flow inbound intake linger "
        "relay settings upstream watchers"
    ),
    "llmproxy/pipeline": (
        "account answer answering attempt classify event_reader events exchange handler heads heartbeat ids links "
        "metering readers room routes shape site snapshot terms tries upload"
    ),
    "llmproxy/policy/health": "breaker registry slow_start window",
    "llmproxy/policy/retry": "budget",
    "llmproxy/policy/limits": "answers charge estimate limiter plan recent usage",
    "llmproxy/policy/routing": (
        "adapters books confirmed expected_cost least_connections prefix_index recent_sessions round_robin token_ratio"
    ),
    "llmproxy/stores": "memory redis redis_ahead redis_alone redis_batch redis_link",
    "llmproxy/telemetry": "line metrics tenants writer",
}
"""What runs for every request, or every piece of an answer."""


def compiled() -> list[Extension]:
    from mypyc.build import mypycify

    paths = [f"{folder}/{name}.py" for folder, names in HOT.items() for name in names.split()]
    return mypycify(["--config-file", "mypyc.ini", *paths], opt_level="3", debug_level="0")


# Metadata is asked for first, by a run of its own; only the run that builds compiles.
builds = not {"bdist_wheel", "build_ext"}.isdisjoint(sys.argv)
setup(ext_modules=compiled() if builds and os.environ.get("LLMPROXY_COMPILE") == "1" else [])
