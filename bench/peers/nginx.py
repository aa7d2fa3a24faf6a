"""nginx: one worker, keep-alive to the upstreams, no buffering of answers, access log on."""

import getpass

from bench.peers.base import Peer, Site, Start, find, first_line

_CONFIG = """\
daemon off;
user {user};
worker_processes 1;
worker_rlimit_nofile {files};
pid {room}/nginx.pid;
error_log {room}/error.log warn;
events {{ worker_connections 8192; }}
http {{
  access_log {room}/access.log combined buffer=64k flush=1s;
  client_body_temp_path {room}/body; proxy_temp_path {room}/proxy; fastcgi_temp_path {room}/fastcgi;
  uwsgi_temp_path {room}/uwsgi; scgi_temp_path {room}/scgi;
  tcp_nodelay on;
  keepalive_requests 1000000;
  client_body_buffer_size 64k;
  upstream engines {{
    {servers}
    keepalive 1024; keepalive_requests 1000000; keepalive_timeout 60s;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://engines;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_buffering off;
      proxy_read_timeout 300s;
    }}
  }}
}}
"""


class Nginx(Peer):
    name = "nginx"

    def missing(self) -> str | None:
        return None if find("nginx") else "apt-get install nginx-light"

    def version(self) -> str:
        return first_line(find("nginx") or "nginx", "-v").rpartition("/")[2]

    def prepare(self, site: Site) -> Start:
        servers = " ".join(f"server 127.0.0.1:{port} max_fails=0;" for port in site.upstream_ports)
        text = _CONFIG.format(room=site.room, port=site.port, servers=servers, user=getpass.getuser(), files=16384)
        config = site.write("nginx.conf", text)
        command = [find("nginx") or "nginx", "-p", str(site.room), "-e", f"{site.room}/error.log", "-c", config]
        return Start(command)
