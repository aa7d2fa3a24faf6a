"""An honest emulated vLLM server, for the demo, tests and benches.

It speaks vLLM's HTTP: its routes, its wire format byte for byte where it matters to a proxy (heads sent before the
prefill is done, one chunk an event, a keep-alive of 5 s), its metrics, its way of loading, sleeping, draining and
dying. Behind it runs the engine model of `llmproxy.sim` in real time: requests share steps, so answers get slower as
the batch grows, long prompts take longer, repeated prefixes take less, and too many requests wait.

How it works, from the socket inwards: `Connection` parses requests and notices a client that leaves; `Router` counts
the request, asks the `FaultBoard` what it meets, and calls its route; a route reads the body and starts a `Generation`,
which submits `Choice`s (sequences with a text) to the engine; the `Driver` runs the engine, one timer for the whole
batch, and tells each generation of its tokens; a dialect's `Answer` words them; the `Reply` writes them. No task and no
timer belongs to a request, which is what lets hundreds of streams share a core with the proxy under test.

Invariants: a request is on the engine exactly as long as its generation is not over; a reply ends once; every count
is written where the thing happens (`Stats`). What the model writes depends on the prompt alone (`tokens`).

What is emulated is the outside. There is no model: texts mean nothing, embeddings are hashes, tools are never called.
"""

from llmproxy.emulator.faults import FaultError, parse_faults
from llmproxy.emulator.options import EmulatorOptions
from llmproxy.emulator.server import Emulator
from llmproxy.sim import EngineOptions

__all__ = ["Emulator", "EmulatorOptions", "EngineOptions", "FaultError", "parse_faults"]
