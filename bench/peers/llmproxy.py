"""llmproxy itself, as users run it: access log and metrics on, default policy. As plain Python, and compiled."""

import hashlib
import sys
from pathlib import Path

from bench.peers.base import VENVS, Peer, Site, Start
from llmproxy import __version__

SOURCE = Path(__file__).resolve().parent.parent.parent
COMPILED = VENVS / "llmproxy"

_CONFIG = """\
server: {{host: 127.0.0.1, port: {port}, drain_timeout: 1s}}
admin: {{host: 127.0.0.1, port: {metrics_port}}}
pools:
  bench:
    backends: [{backends}]
logging: {{access: json, file: {room}/access.log}}
"""


class Llmproxy(Peer):
    """The checkout, interpreted."""

    name = "llmproxy"
    python = sys.executable

    def missing(self) -> str | None:
        return None

    def version(self) -> str:
        return __version__

    def prepare(self, site: Site) -> Start:
        backends = ", ".join(f'"{url}"' for url in site.upstream_urls)
        text = _CONFIG.format(port=site.port, metrics_port=site.metrics_port, backends=backends, room=site.room)
        # -P: not the checkout that lies in the current directory.
        command = [self.python, "-P", "-m", "llmproxy", "serve", "--config", site.write("llmproxy.yaml", text)]
        return Start(command, metrics_path="/metrics")


class CompiledLlmproxy(Llmproxy):
    """The same source, its hot path compiled by mypyc (`LLMPROXY_COMPILE=1`), as the Docker image has it."""

    name = "llmproxy-compiled"
    python = str(COMPILED / "bin" / "python")

    def missing(self) -> str | None:
        try:
            built_from = (COMPILED / "source").read_text()
        except OSError:
            return "python -m bench.install"
        return None if built_from == source_digest() else "python -m bench.install (the source has changed since)"


def source_digest() -> str:
    """Tells one state of the source from another."""
    digest = hashlib.sha256()
    for path in [*sorted((SOURCE / "llmproxy").rglob("*.py")), SOURCE / "setup.py"]:
        digest.update(path.read_bytes())
    return digest.hexdigest()
