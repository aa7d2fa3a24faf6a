"""The metrics page, read by prometheus_client's own parser."""

from prometheus_client.parser import text_string_to_metric_families

from llmproxy.emulator.metrics import metrics_page
from llmproxy.emulator.stats import Stats
from llmproxy.sim import Engine, EngineOptions, Sequence

GAUGES = {
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:num_requests_waiting_by_reason",
    "vllm:kv_cache_usage_perc",
    "vllm:engine_sleep_state",
    "vllm:cache_config_info",
}
COUNTERS = {
    "vllm:prefix_cache_queries",
    "vllm:prefix_cache_hits",
    "vllm:prompt_tokens",
    "vllm:generation_tokens",
    "vllm:num_preemptions",
    "vllm:request_success",
    "vllm:admission_rejections",
}
HISTOGRAMS = {
    "vllm:time_to_first_token_seconds",
    "vllm:inter_token_latency_seconds",
    "vllm:e2e_request_latency_seconds",
    "vllm:request_queue_time_seconds",
}


def page(engine: Engine[Sequence], stats: Stats, sleep_level: int = 0) -> dict[str, dict[tuple[str, str], float]]:
    """family -> {(sample, what its labels say beyond engine and model): value}"""
    text = metrics_page(engine, stats, 'a "quoted" model', sleep_level)
    families: dict[str, dict[tuple[str, str], float]] = {}
    for family in text_string_to_metric_families(text):
        samples = families.setdefault(family.name, {})
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("engine") == "0"
            assert labels.pop("model_name") == 'a "quoted" model'
            extra = ",".join(labels.values()) if family.name != "vllm:cache_config_info" else labels["num_gpu_blocks"]
            samples[sample.name, extra] = sample.value
    return families


def test_the_names_are_vllms() -> None:
    families = page(Engine(EngineOptions()), Stats())
    assert set(families) == GAUGES | COUNTERS | HISTOGRAMS


def test_the_figures_are_the_engines() -> None:
    engine: Engine[Sequence] = Engine(EngineOptions(max_num_seqs=1, kv_blocks=10, block_size=4, ttft_s=0, itl_s=1))
    for _ in range(3):
        engine.submit(Sequence(8, 4), 0.0)
    engine.advance(0.0)
    engine.advance(1.0)
    stats = Stats()
    stats.finished["abort"] += 2
    families = page(engine, stats, sleep_level=1)
    assert families["vllm:num_requests_running"] == {("vllm:num_requests_running", ""): 1.0}
    assert families["vllm:num_requests_waiting"] == {("vllm:num_requests_waiting", ""): 2.0}
    assert families["vllm:num_requests_waiting_by_reason"]["vllm:num_requests_waiting_by_reason", "capacity"] == 2.0
    assert families["vllm:kv_cache_usage_perc"] == {("vllm:kv_cache_usage_perc", ""): 0.3}
    assert families["vllm:cache_config_info"] == {("vllm:cache_config_info", "10"): 1.0}
    assert families["vllm:generation_tokens"]["vllm:generation_tokens_total", ""] == 1.0
    assert families["vllm:request_success"]["vllm:request_success_total", "abort"] == 2.0
    sleep = families["vllm:engine_sleep_state"]
    assert sleep["vllm:engine_sleep_state", "awake"] == 0.0
    assert sleep["vllm:engine_sleep_state", "weights_offloaded"] == 1.0


def test_histograms_accumulate() -> None:
    stats = Stats()
    for value in (0.0005, 0.03, 0.04, 5000.0):
        stats.ttft_s.observe(value)
    samples = page(Engine(EngineOptions()), stats)["vllm:time_to_first_token_seconds"]
    bucket = "vllm:time_to_first_token_seconds_bucket"
    assert samples[bucket, "0.001"] == 1.0
    assert samples[bucket, "0.04"] == 3.0
    assert samples[bucket, "2560.0"] == 3.0
    assert samples[bucket, "+Inf"] == 4.0
    assert samples["vllm:time_to_first_token_seconds_count", ""] == 4.0
    assert samples["vllm:time_to_first_token_seconds_sum", ""] == 5000.0705
