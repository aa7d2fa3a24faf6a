"""LiteLLM's proxy (PyPI), with its defaults. Some hundred times slower than the rest, so it gets a hundredth of the
load; CPU per unit of work is comparable all the same."""

from bench.peers.base import Site, Start, VenvPeer


class LiteLLM(VenvPeer):
    name = "litellm"
    package = "litellm"
    install_option = "--litellm"
    share = 0.01
    start_s = 90.0

    def prepare(self, site: Site) -> Start:
        models = "".join(
            f"  - model_name: bench\n    litellm_params: {{model: openai/bench, api_base: {url}/v1, api_key: none}}\n"
            for url in site.upstream_urls
        )
        config = site.write("litellm.yaml", f"model_list:\n{models}")
        # The price list ships with the package; without this it is looked for on the internet.
        env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False"}
        command = [str(self.program), "--config", config, "--host", "127.0.0.1", "--port", str(site.port)]
        return Start(command, env)
