"""A model of one inference engine, in virtual or real time.

What it decides: when each sequence gets its next token, and which prompt blocks are found in the prefix cache.
It is pure: `now` (seconds) is an argument, nothing sleeps, and no socket is known. A driver asks `Engine.due` when to
call `Engine.advance` next; the emulator's driver waits that long, a simulator jumps there.

The model follows vLLM's scheduler (continuous batching over a paged KV cache):

- Sequences wait first come, first served, until one of `max_num_seqs` places and the KV blocks of the whole prompt are
  free. Blocks found in the prefix cache are shared and need no computing; at least one prompt token always does.
- The engine works in steps. A step gives every decoding sequence one token and computes prompt tokens of the others, up
  to `max_batched_tokens` in all (chunked prefill). It lasts
  `itl_s * (1 + batch_slowdown * (decoding - 1)) + prompt_tokens * prefill_s_per_token`,
  so decoding gets slower as the batch grows and a long prompt is felt by everyone who is decoding.
- A sequence takes part from `ttft_s` after it got its place (the fixed part of the time to the first token). So the
  first token of a lone request comes after `ttft_s + uncached_prompt_tokens * prefill_s_per_token`.
- When a sequence needs a block and none is free, the one that got its place last is preempted: it loses its blocks and
  waits at the head of the queue to be computed again.
- A finished sequence's full blocks stay in the cache until others need the room, the least recently used go first, and
  of one sequence the last block goes before the first.

State is written by `Engine` (and through it by `BlockPool`) alone; drivers read it.
"""

from llmproxy.sim.blocks import BlockPool, BlockTable
from llmproxy.sim.engine import Engine
from llmproxy.sim.options import EngineOptions
from llmproxy.sim.sequence import Phase, Sequence

__all__ = ["BlockPool", "BlockTable", "Engine", "EngineOptions", "Phase", "Sequence"]
