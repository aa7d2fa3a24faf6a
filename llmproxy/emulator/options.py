"""What an emulated server is told when it starts."""

from dataclasses import dataclass, field

from llmproxy.emulator.faults import parse_faults
from llmproxy.sim import EngineOptions


@dataclass(frozen=True, slots=True)
class EmulatorOptions:
    """Everything has a default, so `EmulatorOptions()` is a server on a free loopback port."""

    host: str = "127.0.0.1"
    port: int = 0
    """0 picks a free one."""
    models: tuple[str, ...] = ("emulated",)
    """Names it answers to; the first is the one in its metrics."""
    name: str = ""
    """Sent as `X-Emulator` with every answer when given, and part of `/emulator/state`."""
    engine: EngineOptions = field(default_factory=EngineOptions)
    max_model_len: int = 131072
    """Longest prompt and output together, in tokens (and never more than the KV cache holds)."""
    output_tokens: int = 16
    """Length of an answer when the request sets no `max_tokens`."""
    max_queued: int | None = None
    """Waiting requests beyond which new ones get 503 (vLLM's `--max-num-queued-reqs`); None: no bound."""
    fail: str = ""
    """Faults to begin with; see `llmproxy.emulator.faults`."""
    startup_s: float = 0.0
    """How long connections are refused at first, as by an engine that loads its weights."""
    api_key: str = ""
    """When given, `/v1` wants it as a bearer token."""
    keepalive_s: float = 5.0
    """How long an idle connection is kept; vLLM closes after 5 s."""
    body_max_bytes: int = 64 * 1024 * 1024
    shutdown_timeout_s: float = 0.0
    """On SIGTERM, how long running requests may finish; 0 aborts them, as vLLM does."""
    request_id_headers: bool = False
    """Answer with the request's `X-Request-Id` (vLLM's `--enable-request-id-headers`)."""
    seed: int = 0
    """Seeds the draws of faults that have a probability."""

    def __post_init__(self) -> None:
        if not self.models or not all(self.models):
            raise ValueError("an emulated server needs at least one model, and no empty name")
        if self.output_tokens < 1:
            raise ValueError("output_tokens must be at least 1")
        parse_faults(self.fail)
