"""Prompt tokens from bytes, by a ratio learned for each model from what engines report."""

from typing import Final

from llmproxy.core.prompt import TOKENS_PER_BYTE

_PRIOR_BYTES: Final = 20_000.0
_MEMORY_BYTES: Final = 5_000_000.0
_MODELS_MAX: Final = 1000


class TokenRatio:
    """`ratio(model)` in tokens a byte: the sums of both over the last few megabytes."""

    __slots__ = ("_sums",)

    def __init__(self) -> None:
        self._sums: dict[str | None, tuple[float, float]] = {}

    def ratio(self, model: str | None) -> float:
        sums = self._sums.get(model)
        return TOKENS_PER_BYTE if sums is None else sums[0] / sums[1]

    def learn(self, model: str | None, size: int, tokens: int) -> None:
        """A prompt of `size` bytes was `tokens` tokens."""
        if size <= 0 or tokens <= 0:
            return
        all_tokens, all_bytes = self._sums.get(model, (TOKENS_PER_BYTE * _PRIOR_BYTES, _PRIOR_BYTES))
        if all_bytes > _MEMORY_BYTES:
            all_tokens, all_bytes = all_tokens / 2, all_bytes / 2
        if model in self._sums or len(self._sums) < _MODELS_MAX:
            self._sums[model] = (all_tokens + tokens, all_bytes + size)
