"""What of the prefix cache hits that were expected at a backend came true.

The index knows what this proxy sent to a backend. It does not know what other proxies sent there, what their prompts
took the place of, whether the engine caches at all, or whether it has forgotten. So every expected hit is scaled by the
share of those before it, token for token, that came true there:

- a request whose `usage` tells its `cached_tokens` is judged by them;
- of the others (vLLM tells only if started with `--enable-prompt-tokens-details`) it is known from `/metrics` how many
  tokens were found in the cache by all requests of everybody. Each such hit can confirm one expected token. Where other
  proxies' requests find much, that proves little, and ours are believed; where less is found than ours expect
  alone, they are not.

Counters that fall are those of an engine that has been started again: its cache is empty, and the index is told so.
"""

from typing import Final

from llmproxy.core.backend import Gauges

_PRIOR_TOKENS: Final = 20_000.0
"""Expected hits that are believed to have come true before any have been seen."""
_MEMORY_TOKENS: Final = 200_000.0
_SPARE_MAX: Final = 100_000.0
"""Hits are counted when a prompt begins to be computed, and asked for when its answer ends: so many are kept."""
_COUNTS_BLOCKS: Final = 4.0
"""vLLM before 0.9 counted blocks of 16 tokens: then our own prompts are several times what it says of all."""


class Confirmed:
    """One backend's. `share` is what an expected hit is worth, 0 to 1."""

    __slots__ = ("_counted", "_expected", "_found", "_gauges", "_ours", "_spare", "share")

    def __init__(self) -> None:
        self.share = 1.0
        self._expected = self._found = _PRIOR_TOKENS
        self._gauges: Gauges | None = None
        """The last that had counters."""
        self._spare = 0.0
        """Hits that were counted there and have confirmed nothing yet."""
        # Since the first reading: prompt tokens of ours that ended, and what the engine counted of all, from the second
        # reading on.
        self._ours = 0.0
        self._counted: float | None = None

    def told(self, prompt_tokens: float, expected: float, cached: float) -> None:
        """A request's usage: so many of its tokens were in the cache."""
        self._ours += prompt_tokens
        self._spare = max(self._spare - cached, 0.0)
        self._add(expected, min(expected, cached))

    def untold(self, prompt_tokens: float, expected: float) -> None:
        """A request that ended, and whose usage says nothing of the cache."""
        self._ours += prompt_tokens
        if self._counted is None:
            return
        found = min(expected, self._spare)
        self._spare -= found
        self._add(expected, found)

    def read(self, gauges: Gauges | None) -> bool:
        """Its gauges, maybe new. True when the engine has been started again."""
        before = self._gauges
        if gauges is before or gauges is None or gauges.prefix_hits is None or gauges.prefix_queries is None:
            return False
        self._gauges = gauges
        if before is None or before.prefix_hits is None or before.prefix_queries is None:
            self._ours = 0.0
            return False
        hits, queries = gauges.prefix_hits - before.prefix_hits, gauges.prefix_queries - before.prefix_queries
        if hits < 0 or queries < 0:
            self._spare, self._ours, self._counted = 0.0, 0.0, None
            return True
        counted = self._counted = (self._counted or 0.0) + queries
        if 0 < counted * _COUNTS_BLOCKS < self._ours:
            hits *= self._ours / counted
        self._spare = min(self._spare + hits, _SPARE_MAX)
        return False

    def _add(self, expected: float, found: float) -> None:
        if self._expected > _MEMORY_TOKENS:
            self._expected, self._found = self._expected / 2, self._found / 2
        self._expected += expected
        self._found += found
        self.share = self._found / self._expected
