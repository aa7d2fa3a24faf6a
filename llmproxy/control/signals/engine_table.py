"""The one table of what engines call their metrics: vLLM then and now, SGLang, llama.cpp, TensorRT-LLM (its own server,
and behind Triton).

A field has the value of the first of its names that the page has: some versions show a metric under its old and its new
name at once. A name's samples are added up over the engines behind one server (data-parallel ranks), or averaged where
adding makes no sense; samples of other ranks of the *same* engine (tensor and pipeline parallel) are copies and do
not count. Counters are listed as vLLM's client library shows them, with `_total`; without it they are known too.
"""

from enum import Enum
from types import MappingProxyType
from typing import Final, NamedTuple


class Fold(Enum):
    """How the samples of several engines become one value."""

    SUM = "sum"
    MEAN = "mean"


class Row(NamedTuple):
    """A field of the gauges (or a step towards one) and a name that it may have; `where` is a label that must be so."""

    field: str
    name: str
    fold: Fold = Fold.SUM
    where: tuple[str, str] | None = None


TRITON_REQUESTS: Final = "nv_trt_llm_request_metrics"
TRITON_BLOCKS: Final = "nv_trt_llm_kv_cache_block_metrics"
_KIND: Final = "kv_cache_block_type"

TABLE: Final = (
    Row("running", "vllm:num_requests_running"),
    Row("running", "sglang:num_running_reqs"),
    Row("running", "llamacpp:requests_processing"),
    Row("running", "trtllm_num_requests_running"),
    Row("running", TRITON_REQUESTS, where=("request_type", "scheduled")),
    Row("running", TRITON_REQUESTS, where=("request_type", "active")),
    Row("waiting", "vllm:num_requests_waiting"),
    Row("waiting", "sglang:num_queue_reqs"),
    Row("waiting", "llamacpp:requests_deferred"),
    Row("waiting", "trtllm_num_requests_waiting"),
    Row("waiting", TRITON_REQUESTS, where=("request_type", "waiting")),
    Row("kv_usage", "vllm:kv_cache_usage_perc", Fold.MEAN),
    Row("kv_usage", "vllm:gpu_cache_usage_perc", Fold.MEAN),  # vLLM before 0.10
    Row("kv_usage", "sglang:token_usage", Fold.MEAN),
    Row("kv_usage", "llamacpp:kv_cache_usage_ratio", Fold.MEAN),
    Row("kv_usage", "trtllm_kv_cache_utilization", Fold.MEAN),
    Row("kv_usage", TRITON_BLOCKS, Fold.MEAN, (_KIND, "fraction")),
    Row("kv_tokens", "sglang:max_total_num_tokens"),
    Row("kv_blocks", "trtllm_kv_cache_max_blocks"),
    Row("kv_blocks", TRITON_BLOCKS, where=(_KIND, "max")),
    Row("kv_block_tokens", "trtllm_kv_cache_tokens_per_block", Fold.MEAN),
    Row("kv_block_tokens", TRITON_BLOCKS, Fold.MEAN, (_KIND, "tokens_per")),
    Row("prefix_queries", "vllm:prefix_cache_queries_total"),
    Row("prefix_queries", "vllm:gpu_prefix_cache_queries_total"),  # vLLM before 0.10
    Row("prefix_queries", "sglang:prompt_tokens_total"),
    Row("prefix_queries", "trtllm_prompt_tokens_total"),
    Row("prefix_hits", "vllm:prefix_cache_hits_total"),
    Row("prefix_hits", "vllm:gpu_prefix_cache_hits_total"),
    Row("prefix_hits", "sglang:cached_tokens_total"),
    Row("prefix_hits", "trtllm_prompt_cached_tokens_total"),
    Row("preemptions", "vllm:num_preemptions_total"),
    Row("preemptions", "sglang:num_retracted_requests_total"),
    Row("prompt_tokens", "vllm:prompt_tokens_total"),
    Row("prompt_tokens", "sglang:prompt_tokens_total"),
    Row("prompt_tokens", "llamacpp:prompt_tokens_total"),
    Row("prompt_tokens", "trtllm_prompt_tokens_total"),
    Row("generation_tokens", "vllm:generation_tokens_total"),
    Row("generation_tokens", "sglang:generation_tokens_total"),
    Row("generation_tokens", "llamacpp:tokens_predicted_total"),
    Row("generation_tokens", "trtllm_generation_tokens_total"),
    Row("ttft_sum", "vllm:time_to_first_token_seconds_sum"),
    Row("ttft_sum", "sglang:time_to_first_token_seconds_sum"),
    Row("ttft_sum", "trtllm_time_to_first_token_seconds_sum"),
    Row("ttft_count", "vllm:time_to_first_token_seconds_count"),
    Row("ttft_count", "sglang:time_to_first_token_seconds_count"),
    Row("ttft_count", "trtllm_time_to_first_token_seconds_count"),
    Row("itl_sum", "vllm:inter_token_latency_seconds_sum"),
    Row("itl_sum", "vllm:time_per_output_token_seconds_sum"),  # vLLM before 0.11
    Row("itl_sum", "sglang:inter_token_latency_seconds_sum"),
    Row("itl_sum", "sglang:time_per_output_token_seconds_sum"),
    Row("itl_sum", "trtllm_time_per_output_token_seconds_sum"),
    Row("itl_count", "vllm:inter_token_latency_seconds_count"),
    Row("itl_count", "vllm:time_per_output_token_seconds_count"),
    Row("itl_count", "sglang:inter_token_latency_seconds_count"),
    Row("itl_count", "sglang:time_per_output_token_seconds_count"),
    Row("itl_count", "trtllm_time_per_output_token_seconds_count"),
)

HEARTBEATS: Final = (
    "vllm:iteration_tokens_total_count",
    "llamacpp:n_decode_total",
    # SGLang and TensorRT-LLM count tokens when a request ends: these move in the meantime.
    "sglang:num_used_tokens",
    "sglang:gen_throughput",
    "sglang:realtime_tokens_total",
    "sglang:inter_token_latency_seconds_count",
    "trtllm_iteration_latency_seconds",
    "trtllm_kv_cache_gen_alloc_blocks_total",
    "trtllm_num_requests_completed_total",
)
"""What moves whenever the engine has computed something, all of it added up."""

CACHE_INFO: Final = MappingProxyType(
    {
        # Tokens themselves where the page has them (a model may have layers of several kinds, blocks of several sizes),
        # then blocks and their size.
        "vllm:cache_config_info": ("kv_cache_size_tokens", "num_gpu_blocks", "block_size"),
        "sglang:cache_config_info": ("", "num_pages", "page_size"),
    }
)
"""Gauges whose labels say how much fits into the KV cache."""
SLEEP_STATE: Final = "vllm:engine_sleep_state"
LORA_INFO: Final = "vllm:lora_requests_info"
MODEL_LABELS: Final = ("model_name", "model")
COPY_LABELS: Final = ("tp_rank", "pp_rank", "moe_ep_rank")
"""Ranks of one engine: any but the first is a copy."""
