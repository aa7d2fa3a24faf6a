"""HAProxy: one thread, connections to the upstreams always reused, HTTP log to a file.

`option http-no-delay` matters: without it HAProxy may hold a chunk back for 40 ms to join it with the next one, which
saves it CPU and costs the reader latency; no one serves tokens that way.
"""

from bench.peers.base import Peer, Site, Start, find, first_line

_CONFIG = """\
global
  nbthread 1
  maxconn 5000
  log stdout len 1024 format raw local0 info
defaults
  mode http
  log global
  option httplog
  option http-no-delay
  option http-keep-alive
  option forwardfor
  http-reuse always
  timeout connect 5s
  timeout client 300s
  timeout server 300s
  timeout http-keep-alive 75s
frontend clients
  bind 127.0.0.1:{port} backlog 4096
  default_backend engines
backend engines
  balance roundrobin
{servers}
"""


class HAProxy(Peer):
    name = "haproxy"

    def missing(self) -> str | None:
        return None if find("haproxy") else "apt-get install haproxy"

    def version(self) -> str:
        return first_line(find("haproxy") or "haproxy", "-v").split()[2]

    def prepare(self, site: Site) -> Start:
        servers = "\n".join(f"  server s{port} 127.0.0.1:{port}" for port in site.upstream_ports)
        text = _CONFIG.format(port=site.port, servers=servers)
        return Start([find("haproxy") or "haproxy", "-db", "-f", site.write("haproxy.cfg", text)])
