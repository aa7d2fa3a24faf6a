"""vllm-router (PyPI): the vLLM project's router in Rust, with its metrics port and its log at the default level.

Its policy here is power_of_two, the cheapest of its policies that knows the backends' load, as llmproxy's default does.
Its own default, cache_aware, costs it twice the CPU a request; round_robin, which counts nothing, 5-8 % less.
"""

from bench.peers.base import Site, Start, VenvPeer


class VllmRouter(VenvPeer):
    name = "vllm-router"
    package = "vllm-router"

    def prepare(self, site: Site) -> Start:
        command = [
            *(str(self.program), "--host", "127.0.0.1", "--port", str(site.port)),
            *("--worker-urls", *site.upstream_urls, "--policy", "power_of_two"),
            *("--worker-startup-check-interval", "1", "--worker-startup-timeout-secs", "15"),
            *("--prometheus-host", "127.0.0.1", "--prometheus-port", str(site.metrics_port)),
        ]
        return Start(command, metrics_path="/metrics")
