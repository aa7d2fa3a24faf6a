"""Engines' metrics pages as gauges: real ones, old names and new, several engines behind one server."""

from pathlib import Path

import pytest

from llmproxy.control.signals.engine import WANTED, gauges_of
from llmproxy.control.signals.samples import Samples
from llmproxy.core.backend import Gauges, Timings

PAGES = Path(__file__).parent / "pages"


def read(text):
    samples = Samples(WANTED)
    samples.feed(text.encode())
    return gauges_of(samples.whole(), 7.0)


def page(name):
    return (PAGES / f"{name}.txt").read_text()


def test_vllm_now():
    assert read(page("vllm-0.32")) == Gauges(
        at=7.0,
        running=3.0,
        waiting=0.0,
        kv_usage=0.004810996563573866,
        kv_tokens=1456 * 32,
        sleeping=False,
        models=("smollm2",),
        loras=None,
        prefix_queries=958.0,
        prefix_hits=736.0,
        preemptions=0.0,
        prompt_tokens=958.0,
        generation_tokens=663.0,
        heartbeat=66.0,
        ttft=Timings(49.53662967681885, 25.0),
        itl=Timings(85.99638963400503, 638.0),
    )


def test_vllm_then():
    assert read(page("vllm-0.6")) == Gauges(
        at=7.0,
        running=8.0,
        waiting=2.0,
        kv_usage=0.45,
        kv_tokens=27750 * 16,
        models=("meta-llama/Llama-3.1-8B-Instruct",),
        loras=("poems", "sql"),
        preemptions=5.0,
        prompt_tokens=120000.0,
        generation_tokens=45000.0,
        ttft=Timings(12.5, 100.0),
        itl=Timings(900.0, 44900.0),
    )


def test_sglang_of_which_only_the_first_rank_counts():
    gauges = read(page("sglang"))
    assert (gauges.running, gauges.waiting, gauges.kv_usage, gauges.kv_tokens) == (7.0, 3.0, 0.28, 442354)
    assert (gauges.prompt_tokens, gauges.generation_tokens) == (8128902.0, 7557572.0)
    assert (gauges.prefix_queries, gauges.prefix_hits) == (8128902.0, 520000.0)
    assert (gauges.preemptions, gauges.models) == (1.0, ("qwen",))
    assert (gauges.ttft, gauges.itl) == (Timings(2351.5, 11008.0), Timings(80000.0, 7.4e6))
    assert gauges.heartbeat == 123859.0 + 86.5 + 7.4e6


def test_llamacpp():
    assert read(page("llamacpp")) == Gauges(
        7.0,
        running=1.0,
        waiting=3.0,
        kv_usage=0.42,
        prompt_tokens=16185.0,
        generation_tokens=394.0,
        heartbeat=125.0,
    )


def test_tensorrt_llm():
    gauges = read(page("trtllm"))
    assert (gauges.running, gauges.waiting, gauges.kv_usage, gauges.kv_tokens) == (12.0, 4.0, 0.61, 6239 * 32)
    assert (gauges.prompt_tokens, gauges.generation_tokens, gauges.models) == (90000.0, 8000.0, ("nemotron",))
    assert (gauges.prefix_queries, gauges.prefix_hits) == (90000.0, 30000.0)
    assert (gauges.heartbeat, gauges.ttft, gauges.itl) == (0.0125, Timings(6.0, 40.0), None)


def test_tensorrt_llm_behind_triton():
    gauges = read(page("triton"))
    assert (gauges.running, gauges.waiting, gauges.kv_usage, gauges.kv_tokens) == (9.0, 2.0, 0.16, 6239 * 64)
    assert gauges.prompt_tokens is None


def test_data_parallel_engines_are_added_up_and_shares_averaged():
    one = page("vllm-0.32")
    two = read(one + one.replace('engine="0"', 'engine="1"').replace("0.004810996563573866", "0.5"))
    assert (two.running, two.generation_tokens, two.heartbeat) == (6.0, 1326.0, 132.0)
    assert two.kv_tokens == 2 * 1456 * 32
    assert two.kv_usage == pytest.approx((0.004810996563573866 + 0.5) / 2)
    assert two.models == ("smollm2",)


def test_a_metric_shown_under_its_old_and_its_new_name_counts_once():
    gauges = read(
        "vllm:kv_cache_usage_perc 0.5\nvllm:gpu_cache_usage_perc 0.5\n"
        "vllm:prefix_cache_hits_total 3\nvllm:gpu_prefix_cache_hits_total 3\n"
        "vllm:prefix_cache_queries_total 4\nvllm:gpu_prefix_cache_queries_total 4\n"
    )
    assert (gauges.kv_usage, gauges.prefix_hits, gauges.prefix_queries) == (0.5, 3.0, 4.0)


def test_counters_are_known_without_their_suffix():
    assert read("vllm:generation_tokens 5\nvllm:gpu_prefix_cache_hits 2\n").generation_tokens == 5.0


def test_what_is_not_there_is_unknown_and_never_zero():
    assert read("") == Gauges(7.0)
    assert read("node_load1 5\n") == Gauges(7.0)
    gauges = read("vllm:num_requests_running 0\n")
    assert gauges == Gauges(7.0, running=0.0)


@pytest.mark.parametrize("value", ["45", "-1", "NaN"])
def test_a_share_that_is_none_is_unknown(value):
    assert read(f"vllm:kv_cache_usage_perc {value}\n").kv_usage is None


@pytest.mark.parametrize(
    ("labels", "tokens"),
    [
        ('block_size="16",num_gpu_blocks="100"', 1600),
        ('block_size="16",num_gpu_blocks="None"', None),
        ('block_size="16"', None),
        ('block_size="16",kv_cache_size_tokens="1000",num_gpu_blocks="100"', 1000),
        ('block_size="16",kv_cache_size_tokens="None",num_gpu_blocks="100"', 1600),
        ('block_size="1e9",num_gpu_blocks="100"', None),
    ],
)
def test_the_size_of_the_kv_cache(labels, tokens):
    assert read(f"vllm:cache_config_info{{{labels}}} 1\n").kv_tokens == tokens


@pytest.mark.parametrize(("awake", "sleeping"), [((1,), False), ((0,), True), ((0, 1), False), ((0, 0), True)])
def test_asleep_when_all_engines_are(awake, sleeping):
    lines = (f'vllm:engine_sleep_state{{engine="{i}",sleep_state="awake"}} {on}\n' for i, on in enumerate(awake))
    assert read("".join(lines)).sleeping is sleeping


def test_no_lora_in_use_is_known_and_none():
    assert read('vllm:lora_requests_info{running_lora_adapters="",waiting_lora_adapters=""} 1\n').loras == ()
