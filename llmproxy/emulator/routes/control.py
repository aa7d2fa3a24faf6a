"""Health, metrics, sleep and the other routes about the server itself (vLLM's development mode included)."""

from urllib.parse import parse_qs

from llmproxy.emulator import metrics
from llmproxy.emulator.faults import Plan
from llmproxy.emulator.reply import Reply
from llmproxy.emulator.routes.handler import Routes
from llmproxy.emulator.site import Site

VERSION = "0.32.0"


def health(site: Site, reply: Reply, plan: Plan) -> None:
    reply.send(200, "", b"")


def version(site: Site, reply: Reply, plan: Plan) -> None:
    reply.json(200, {"version": VERSION})


def load(site: Site, reply: Reply, plan: Plan) -> None:
    reply.json(200, {"server_load": site.stats.in_flight})


def metrics_page(site: Site, reply: Reply, plan: Plan) -> None:
    page = metrics.metrics_page(site.engine, site.stats, site.options.models[0], site.shown_sleep_level)
    reply.send(200, metrics.CONTENT_TYPE, page.encode())


def sleep(site: Site, reply: Reply, plan: Plan) -> None:
    level = parse_qs(reply.request.query).get("level", ["1"])[0]
    site.sleep_level = 2 if level == "2" else 1
    site.engine.blocks.clear_cache()
    site.apply_pause()
    reply.send(200, "", b"")


def wake_up(site: Site, reply: Reply, plan: Plan) -> None:
    site.sleep_level = 0
    site.apply_pause()
    reply.send(200, "", b"")


def is_sleeping(site: Site, reply: Reply, plan: Plan) -> None:
    reply.json(200, {"is_sleeping": site.shown_sleep_level > 0})


def pause(site: Site, reply: Reply, plan: Plan) -> None:
    site.paused = True
    site.apply_pause()
    reply.json(200, {"status": "paused"})


def resume(site: Site, reply: Reply, plan: Plan) -> None:
    site.paused = False
    site.apply_pause()
    reply.json(200, {"status": "resumed"})


def is_paused(site: Site, reply: Reply, plan: Plan) -> None:
    reply.json(200, {"is_paused": site.paused})


def reset_prefix_cache(site: Site, reply: Reply, plan: Plan) -> None:
    site.engine.blocks.clear_cache()
    reply.send(200, "", b"")


ROUTES: Routes = {
    ("GET", "/health"): health,
    ("GET", "/ping"): health,
    ("POST", "/ping"): health,
    ("GET", "/version"): version,
    ("GET", "/load"): load,
    ("GET", "/metrics"): metrics_page,
    ("POST", "/sleep"): sleep,
    ("POST", "/wake_up"): wake_up,
    ("GET", "/is_sleeping"): is_sleeping,
    ("POST", "/pause"): pause,
    ("POST", "/resume"): resume,
    ("GET", "/is_paused"): is_paused,
    ("POST", "/reset_prefix_cache"): reset_prefix_cache,
}
