"""Other systems' routing rules, as policies with the interface of `llmproxy.policy.routing`, to be compared with.

Each is written from its published description alone, which its module cites together with the choices the description
left open. Each gets what it knows in its own system: live counts where its router counts, scraped gauges where it
scrapes, a prefix index as large as its own. Where that is not to be had here, it gets something better, never worse:

- Blocks are `BLOCK_BYTES` long for all, and lookups are exact within a block's length. (The systems use 16 to 128
  characters or tokens; the trace knows no less than 512 tokens.)
- Dynamo and LMetric count tokens with the model's tokenizer: here size times the mean tokens a byte, which is exact
  as long as the trace's estimates are undisturbed. Dynamo is told by events what the engines cache: here an index of
  what was sent, as large as the cache and evicted in the same order.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from llmproxy.sim.contender import Contender

RIVALS: Final[Mapping[str, Contender]] = MappingProxyType(
    {
        "sglang": Contender("bench.routing.rivals.sglang:SGLang"),
        "smg": Contender(
            "bench.routing.rivals.sglang:SGLang",
            MappingProxyType({"cache": 0.3, "abs": 64, "rel": 1.5, "unmatched": "least_loaded"}),
        ),
        "llm_d": Contender("bench.routing.rivals.llm_d:LlmD"),
        "llm_d_live": Contender("bench.routing.rivals.llm_d:LlmD"),
        "aibrix": Contender("bench.routing.rivals.aibrix:AIBrix"),
        "dynamo": Contender("bench.routing.rivals.dynamo:Dynamo"),
        "lmetric": Contender("bench.routing.rivals.lmetric:LMetric"),
        "chwbl": Contender("bench.routing.rivals.chwbl:BoundedHashing"),
    }
)
"""Label -> class, and the options it runs with."""
