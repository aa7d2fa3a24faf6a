"""Which backends have what a request for a LoRA adapter needs.

An engine answers to the names in `Gauges.models`, adapters among them, and says in `Gauges.loras` which adapters its
requests use just now. One that has an adapter but no request for it may have to fetch it from host memory first, some
tenths of a second. One that does not know the name at all refuses, or (vLLM with a resolver) loads it from disk. So
backends are compared, and those that lack something are said to: how much that counts is each policy's own affair.
Nobody lacks what no candidate has, and what a backend has never told of itself is not held against it.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from llmproxy.core.backend import Backend

IDLE: Final = 1
"""Has it, and no request uses it there, while elsewhere one does."""
MISSING: Final = 2
"""Does not answer to that name, while another candidate does."""

_KEEP_S: Final = 0.5
"""Gauges are read about once a second: no need to compare them for each request."""
_MODELS_MAX: Final = 1000
_NOBODY: Final[Mapping[Backend, int]] = MappingProxyType({})
_NEVER_SEEN: Final = (float("-inf"), 0, _NOBODY)


class Adapters:
    """`lacking` is asked for each request, and compares each model's candidates anew twice a second."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        # Until when it counts, of how many candidates it is the comparison, and what came of it.
        self._known: dict[str, tuple[float, int, Mapping[Backend, int]]] = {}

    def lacking(self, model: str | None, candidates: Sequence[Backend], now: float) -> Mapping[Backend, int]:
        """`IDLE` or `MISSING` for those of the candidates that are one or the other."""
        if model is None:
            return _NOBODY
        until, compared, lacking = self._known.get(model, _NEVER_SEEN)
        if until >= now and len(candidates) <= compared:
            if not lacking or len(candidates) == compared:
                return lacking
            # Some are full, or were tried: what do the others lack of each other's?
            return _compare(model, candidates, now)
        if len(self._known) >= _MODELS_MAX:
            # Clients may invent names.
            self._known.clear()
        lacking = _compare(model, candidates, now)
        self._known[model] = (now + _KEEP_S, len(candidates), lacking)
        return lacking

    def forget(self, backend: Backend) -> None:
        """The backend left."""
        self._known.clear()


def _compare(model: str, candidates: Sequence[Backend], now: float) -> Mapping[Backend, int]:
    missing: list[Backend] = []
    idle: list[Backend] = []
    has_any = used_anywhere = False
    for backend in candidates:
        names = backend.gauges.models if backend.gauges is not None else ()
        if names and model not in names:
            missing.append(backend)
            continue
        has_any = has_any or bool(names)
        gauges = backend.known(now)
        if gauges is not None and gauges.loras is not None:
            if model in gauges.loras:
                used_anywhere = True
            else:
                idle.append(backend)
    lacking = dict.fromkeys(idle, IDLE) if used_anywhere else {}
    if has_any:
        lacking |= dict.fromkeys(missing, MISSING)
    return lacking or _NOBODY
