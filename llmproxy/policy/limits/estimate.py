"""How many tokens a request will take, learned from those before it."""

from collections import OrderedDict

from llmproxy.core.prompt import TOKENS_PER_BYTE
from llmproxy.policy.limits.recent import Remembered, make_room

_OUTPUT_TOKENS = 256
_BINS = 48
"""Each half an octave: 2^23 tokens at the end."""
_ENOUGH = 8
_HALVE_AT = 256
_EVERY = 8
"""The quantile is found anew after so many answers, and at once while there are few."""


class Lengths(Remembered):
    """Of answers, in bins that double every second one; the older half fades. And the tokens of a prompt's byte. Where
    little is known yet, `general` counts: what is known of all."""

    __slots__ = ("_bins", "_bytes", "_count", "_general", "_quantile", "_tokens", "_usual")

    def __init__(self, quantile: float, general: "Lengths | None") -> None:
        super().__init__()
        self._quantile = quantile
        self._general = general
        self._bins = [0] * _BINS
        self._count = 0
        self._usual = 0
        self._tokens = TOKENS_PER_BYTE * 4096
        self._bytes = 4096.0

    def output_tokens(self, max_tokens: int | None = None) -> int:
        """What to reserve for an answer, at least 1."""
        found: Lengths | None = self if self._count >= _ENOUGH else self._general
        tokens = _OUTPUT_TOKENS if found is None or found._count < _ENOUGH else found._usual
        return max(1, tokens if max_tokens is None or max_tokens > tokens else max_tokens)

    def prompt_tokens(self, prompt_bytes: int) -> int:
        """Estimated from its size, at least 1."""
        found = self if self._count or self._general is None else self._general
        tokens = int(prompt_bytes * found._tokens / found._bytes + 0.5)
        return tokens if tokens else 1

    def learn(self, output_tokens: int, prompt_tokens: int = 0, prompt_bytes: int = 0) -> None:
        """An answer was so long, and a prompt of so many bytes had so many tokens (0: not known)."""
        self.seen = self._count > 0
        bin = _bin_of(output_tokens)
        self._learn(bin, prompt_tokens, prompt_bytes)
        if self._general is not None:
            self._general.seen = True
            self._general._learn(bin, prompt_tokens, prompt_bytes)

    def _learn(self, bin: int, prompt_tokens: int, prompt_bytes: int) -> None:
        self._bins[bin] += 1
        self._count += 1
        if self._count > _HALVE_AT:
            self._bins = [number // 2 for number in self._bins]
            self._count = sum(self._bins)
        if prompt_tokens > 0 and prompt_bytes > 0:
            self._tokens += prompt_tokens
            self._bytes += prompt_bytes
            if self._bytes > 1 << 20:
                self._tokens /= 2
                self._bytes /= 2
        if self._count > 2 * _ENOUGH and self._count % _EVERY:
            return
        wanted, number = self._count * self._quantile, 0
        while number < _BINS - 1 and wanted > self._bins[number]:
            wanted -= self._bins[number]
            number += 1
        self._usual = round(2 ** ((number + 1) / 2))


class Estimator:
    """By tenant and model, and by model alone for tenants that are new. At most `pairs_max` are remembered, those last
    used. `quantile` is the share of answers that shall not be longer than what is reserved for them."""

    def __init__(self, quantile: float = 0.8, pairs_max: int = 2000) -> None:
        self._quantile = quantile
        self._pairs_max = pairs_max
        self._known: OrderedDict[tuple[str, str], Lengths] = OrderedDict()

    def of(self, tenant: str, model: str) -> Lengths:
        """What is known of this tenant's requests for this model, until it is forgotten."""
        known, key = self._known, (tenant, model)
        found = known.get(key)
        if found is None:
            general = self.of("", model) if tenant else None
            if general is not None:
                general.seen = True
            make_room(known, self._pairs_max)
            found = known[key] = Lengths(self._quantile, general)
        return found

    def __len__(self) -> int:
        return len(self._known)


def _bin_of(tokens: int) -> int:
    """Bin b is up to 2^((b+1)/2) tokens."""
    return 0 if tokens < 2 else min(_BINS - 1, (tokens * tokens - 1).bit_length() - 1)
