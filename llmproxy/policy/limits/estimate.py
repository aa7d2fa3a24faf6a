"""How many tokens a request will take, learned from those before it."""

import math
from collections import OrderedDict

TOKENS_PER_BYTE = 0.25
"""Of English, until it is learned."""
_OUTPUT_TOKENS = 256
_BINS = 48
"""Each half an octave: 2^23 tokens at the end."""
_ENOUGH = 8
_HALVE_AT = 256
_EVERY = 8
"""The quantile is found anew after so many answers, and at once while there are few."""


class _Outputs:
    """Lengths of answers, in bins that double every second one; the older half fades. And the tokens of a byte."""

    __slots__ = ("bins", "bytes", "count", "quantile", "tokens")

    def __init__(self) -> None:
        self.bins = [0.0] * _BINS
        self.count = 0.0
        self.quantile = 0
        self.tokens = TOKENS_PER_BYTE * 4096
        self.bytes = 4096.0


class Estimator:
    """By tenant and model, and by model alone for tenants that are new. At most `pairs_max` are remembered, those last
    used. `quantile` is the share of answers that shall not be longer than what is reserved for them."""

    def __init__(self, quantile: float = 0.8, pairs_max: int = 2000) -> None:
        self._quantile = quantile
        self._pairs_max = pairs_max
        self._known: OrderedDict[tuple[str, str], _Outputs] = OrderedDict()

    def output_tokens(self, tenant: str, model: str | None, max_tokens: int | None = None) -> int:
        """What to reserve for an answer, at least 1."""
        known = self._known
        name = model or ""
        found = known.get((tenant, name))
        if found is None or found.count < _ENOUGH:
            found = known.get(("", name))
        tokens = _OUTPUT_TOKENS if found is None or found.count < _ENOUGH else found.quantile
        return max(1, tokens if max_tokens is None or max_tokens > tokens else max_tokens)

    def prompt_tokens(self, tenant: str, model: str | None, prompt_bytes: int) -> int:
        """Estimated from its size, at least 1."""
        found = self._known.get((tenant, model or "")) or self._known.get(("", model or ""))
        ratio = TOKENS_PER_BYTE if found is None else found.tokens / found.bytes
        return max(1, round(prompt_bytes * ratio))

    def learn(
        self, tenant: str, model: str | None, output_tokens: int, prompt_tokens: int = 0, prompt_bytes: int = 0
    ) -> None:
        """An answer was so long, and a prompt of so many bytes had so many tokens (0: not known)."""
        name, bin = model or "", _bin_of(output_tokens)
        self._learn(self._outputs((tenant, name)), bin, prompt_tokens, prompt_bytes)
        self._learn(self._outputs(("", name)), bin, prompt_tokens, prompt_bytes)

    def __len__(self) -> int:
        return len(self._known)

    def _outputs(self, key: tuple[str, str]) -> _Outputs:
        known = self._known
        found = known.get(key)
        if found is None:
            found = known[key] = _Outputs()
            if len(known) > self._pairs_max:
                known.popitem(last=False)
        else:
            known.move_to_end(key)
        return found

    def _learn(self, found: _Outputs, bin: int, prompt_tokens: int, prompt_bytes: int) -> None:
        found.bins[bin] += 1
        found.count += 1
        if found.count > _HALVE_AT:
            found.bins = [number / 2 for number in found.bins]
            found.count /= 2
        if prompt_tokens > 0 and prompt_bytes > 0:
            found.tokens += prompt_tokens
            found.bytes += prompt_bytes
            if found.bytes > 1 << 20:
                found.tokens /= 2
                found.bytes /= 2
        if found.count > 2 * _ENOUGH and found.count % _EVERY >= 1:
            return
        wanted, number = found.count * self._quantile, 0
        while number < _BINS - 1 and wanted > found.bins[number]:
            wanted -= found.bins[number]
            number += 1
        found.quantile = round(2 ** ((number + 1) / 2))


def _bin_of(tokens: int) -> int:
    """Bin b is up to 2^((b+1)/2) tokens."""
    return 0 if tokens < 2 else min(_BINS - 1, math.ceil(2 * math.log2(tokens)) - 1)
