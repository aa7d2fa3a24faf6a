"""`/metrics`: the names, types and labels of vLLM's page, for one engine."""

from collections.abc import Iterable, Iterator
from typing import Any

from llmproxy.emulator.stats import Histogram, Stats
from llmproxy.sim import Engine

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})

Samples = Iterable[tuple[str, float]]
"""Further labels (with a comma before them, or nothing) and the value."""


def metrics_page(engine: Engine[Any], stats: Stats, model: str, sleep_level: int) -> str:
    """The page as text. `sleep_level` is 0 awake, 1 weights offloaded, 2 everything discarded."""
    own = f'engine="0",model_name="{model.translate(_ESCAPES)}"'
    lines = [*_gauges(engine, own, sleep_level), *_counters(engine, stats, own), *_histograms(stats, own)]
    return "\n".join(lines) + "\n"


def _gauges(engine: Engine[Any], own: str, sleep_level: int) -> Iterator[str]:
    yield from _family("num_requests_running", "gauge", "Sequences being computed.", own, [("", engine.running)])
    yield from _family("num_requests_waiting", "gauge", "Sequences waiting.", own, [("", engine.waiting)])
    by_reason = [(',reason="capacity"', engine.waiting), (',reason="deferred"', 0)]
    yield from _family("num_requests_waiting_by_reason", "gauge", "Sequences waiting, by reason.", own, by_reason)
    yield from _family("kv_cache_usage_perc", "gauge", "KV cache usage, 0 to 1.", own, [("", engine.kv_usage)])
    states = ("awake", "weights_offloaded", "discard_all")
    sleep = [(f',sleep_state="{state}"', int(sleep_level == level)) for level, state in enumerate(states)]
    yield from _family("engine_sleep_state", "gauge", "Whether the engine sleeps, and how deep.", own, sleep)
    info = f',block_size="{engine.blocks.block_size}",num_gpu_blocks="{engine.blocks.total}"'
    info += ',cache_dtype="auto",enable_prefix_caching="True"'
    yield from _family("cache_config_info", "gauge", "The KV cache's configuration.", own, [(info, 1)])


def _counters(engine: Engine[Any], stats: Stats, own: str) -> Iterator[str]:
    plain = (
        ("prefix_cache_queries", "Prompt tokens looked up in the prefix cache.", engine.prefix_queries),
        ("prefix_cache_hits", "Prompt tokens found in the prefix cache.", engine.prefix_hits),
        ("prompt_tokens", "Prompt tokens processed.", engine.prompt_tokens),
        ("generation_tokens", "Tokens generated.", engine.generation_tokens),
        ("num_preemptions", "Sequences preempted.", engine.preemptions),
    )
    for name, text, value in plain:
        yield from _family(f"{name}_total", "counter", text, own, [("", value)])
    ends = [(f',finished_reason="{reason}"', count) for reason, count in stats.finished.items()]
    yield from _family("request_success_total", "counter", "Finished requests, by reason.", own, ends)
    refusals = [(f',reason="{reason}"', count) for reason, count in stats.rejected.items()]
    yield from _family("admission_rejections_total", "counter", "Requests refused at the door.", own, refusals)


def _histograms(stats: Stats, own: str) -> Iterator[str]:
    yield from _histogram("time_to_first_token_seconds", "Time to the first token.", own, stats.ttft_s)
    yield from _histogram("inter_token_latency_seconds", "Time between tokens.", own, stats.itl_s)
    yield from _histogram("e2e_request_latency_seconds", "Time to the last token.", own, stats.e2e_s)
    yield from _histogram("request_queue_time_seconds", "Time spent waiting.", own, stats.queue_s)


def _family(name: str, type_: str, text: str, own: str, samples: Samples) -> Iterator[str]:
    # The text format names counters with their suffix in TYPE too.
    yield f"# HELP vllm:{name} {text}"
    yield f"# TYPE vllm:{name} {type_}"
    for labels, value in samples:
        yield f"vllm:{name}{{{own}{labels}}} {float(value)!r}"


def _histogram(name: str, text: str, own: str, histogram: Histogram) -> Iterator[str]:
    yield f"# HELP vllm:{name} {text}"
    yield f"# TYPE vllm:{name} histogram"
    count = 0
    bounds = [*(repr(float(bound)) for bound in histogram.bounds), "+Inf"]
    for bound, here in zip(bounds, histogram.counts, strict=True):
        count += here
        yield f'vllm:{name}_bucket{{{own},le="{bound}"}} {float(count)!r}'
    yield f"vllm:{name}_count{{{own}}} {float(count)!r}"
    yield f"vllm:{name}_sum{{{own}}} {histogram.total!r}"
