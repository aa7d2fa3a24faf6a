"""llmproxy itself, as users run it: access log and metrics on, default policy."""

import sys

from bench.peers.base import Peer, Site, Start
from llmproxy import __version__

_CONFIG = """\
server: {{host: 127.0.0.1, port: {port}, drain_timeout: 1s}}
admin: {{host: 127.0.0.1, port: {metrics_port}}}
pools:
  bench:
    backends: [{backends}]
logging: {{access: json, file: {room}/access.log}}
"""


class Llmproxy(Peer):
    name = "llmproxy"

    def missing(self) -> str | None:
        return None

    def version(self) -> str:
        return __version__

    def prepare(self, site: Site) -> Start:
        backends = ", ".join(f'"{url}"' for url in site.upstream_urls)
        text = _CONFIG.format(port=site.port, metrics_port=site.metrics_port, backends=backends, room=site.room)
        command = [sys.executable, "-m", "llmproxy", "serve", "--config", site.write("llmproxy.yaml", text)]
        return Start(command, metrics_path="/metrics")
