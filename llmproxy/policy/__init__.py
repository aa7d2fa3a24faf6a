"""Pure decisions: synchronous, seeded, clock-free.

Every object here is told the time (`now`, monotonic seconds) and its chance (`rng`) by its caller and touches neither
sockets nor the event loop, so the data plane, unit tests and the simulator run the same objects. Each package decides
one thing and imports no other; `llmproxy.core.ports` holds the interfaces they sit behind.
"""
