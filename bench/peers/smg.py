"""smg (PyPI): the Shepherd Model Gateway in Rust, with its metrics port and its log at the default level."""

from bench.peers.base import Site, Start, VenvPeer


class Smg(VenvPeer):
    name = "smg"
    package = "smg"
    install_option = "--smg"

    def prepare(self, site: Site) -> Start:
        command = [
            *(str(self.program), "launch", "--host", "127.0.0.1", "--port", str(site.port)),
            *("--worker-urls", *site.upstream_urls, "--policy", "round_robin"),
            *("--prometheus-host", "127.0.0.1", "--prometheus-port", str(site.metrics_port)),
        ]
        return Start(command, metrics_path="/metrics")
