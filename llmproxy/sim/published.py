"""What an engine says of itself, and when: vLLM counts once a step.

`Scheduler.update_from_output` makes the figures when a step's results are in (`make_stats`, in vllm/v1/core/sched/
scheduler.py; `EngineCore.step`, in vllm/v1/engine/core.py), and `/metrics` shows the last ones made. Requests that come
during a step stay in the engine's input queue until it ends, so they are in no figure before the end of the next one.
`waiting` are those that the scheduler knew and gave no tokens. KV blocks are taken as prompts are computed: what is not
computed yet is not counted, although here (`BlockPool`) a prompt that is let in holds all its blocks.
"""

from typing import Final, NamedTuple


class Published(NamedTuple):
    """As of the last step's end."""

    running: int
    waiting: int
    kv_used: int
    """Blocks."""


NOTHING: Final = Published(0, 0, 0)
