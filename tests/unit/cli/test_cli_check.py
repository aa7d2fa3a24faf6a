"""`llmproxy check` and `llmproxy schema`, as they are typed."""

import json
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from typer.testing import CliRunner

from llmproxy.cli import app


@pytest.fixture
def run():
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "proxy.yaml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def engine():
    """A server on a loopback port: `answers` is path -> (status, body), `keys` what came as Authorization."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            server.keys.append((self.path, self.headers.get("Authorization")))
            status, body = server.answers.get(self.path, (404, b"{}"))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.keys = []
    server.answers = {"/health": (200, b""), "/v1/models": (200, b'{"data": [{"id": "llama-3-8b"}]}')}
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def nobody():
    """The URL of a port that nobody listens on, kept from others for as long as the test runs."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


GOOD = """\
server: {limits: {body: 8MiB}}
pools:
  llama:
    policy: {name: session_affinity, header: x-session-id}
    backends: [{url: "http://10.0.1.10:8000", id: engine-a, weight: 3, max_concurrency: 64}, "http://10.0.1.11:8000"]
    upstream_key: a-secret-key
  vectors: {backends: [{url: "http://vectors:9000", resolve: true}]}
models:
  llama-3-8b: {pool: llama}
  "[bold]gpt-4o": {pool: llama, rewrite: llama-3-8b}
routes: [{path: /retrieve, pool: vectors}]
"""


def test_a_good_file_is_shown_as_tables(run, write):
    path = write(GOOD)
    result = run("check", path)
    assert result.exit_code == 0
    assert result.stderr == ""
    for shown in ("Ports", "Pools", "Backends", "Models", "Routes", "Limits", "engine-a", "http://10.0.1.11:8000"):
        assert shown in result.stdout
    for shown in ("session_affinity (header=x-session-id)", "[bold]gpt-4o", "/retrieve", "8MiB", "each address", "64"):
        assert shown in result.stdout
    assert f"{path} is valid: 2 pools, 3 backends, 2 models." in result.stdout
    assert "a-secret-key" not in result.output


def test_errors_go_to_stderr_with_file_line_and_path(run, write):
    path = write(
        "sever: {}\npools:\n  a:\n    policy: leastconn\n    backends: ['http://a']\n"
        "  b:\n    policy:\n      name: session_affinity\n      load_bond: 2\n    backends: ['http://b']\n"
        "models: {m: {pool: c}}\n"
    )
    result = run("check", path)
    assert result.exit_code == 1
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        [f"{path}:1", "sever"],
        [f"{path}:4", "pools.a.policy"],
        [f"{path}:9", "pools.b.policy.load_bond"],
        [f"{path}:11", "models.m.pool"],
    ]
    assert "did you mean `server`?" in lines[0]
    assert "did you mean" in lines[2]
    assert "load_bound" in lines[2]


def test_a_missing_file(run, tmp_path):
    result = run("check", tmp_path / "none.yaml")
    assert result.exit_code == 1
    assert result.stderr == f"{tmp_path / 'none.yaml'}: cannot be read: No such file or directory\n"


def test_warnings_do_not_fail_it(run, write):
    path = write("pools:\n  a:\n    backends: ['http://a']\n    timeouts: {keepalive: 30s}\n")
    result = run("check", path)
    assert result.exit_code == 0
    assert result.stderr.startswith(f"warning: {path}:4: pools.a.timeouts.keepalive: ")


def test_live_asks_every_backend(run, write, engine):
    path = write(
        f"pools: {{a: {{backends: [{{url: '{engine.url}', id: engine-a}}], upstream_key: k}}}}\n"
        "models: {llama-3-8b: {pool: a}, x: {pool: a, rewrite: other}}\n"
    )
    result = run("check", path, "--live")
    assert result.exit_code == 0
    assert "well" in result.stdout
    assert "llama-3-8b" in result.stdout.partition("Asked just now")[2]
    assert result.stderr == "warning: models.x: no backend of its pool lists 'other'\n"
    assert ("/v1/models", "Bearer k") in engine.keys


def test_live_fails_when_a_backend_is_not_well(run, write, engine, nobody):
    path = write(f"pools: {{a: {{backends: ['{engine.url}', {{url: '{nobody}', id: gone}}]}}}}\n")
    result = run("check", path, "--live")
    assert result.exit_code == 1
    assert "well" in result.stdout
    assert result.stderr == f"error: pools.a: gone ({nobody}): connection refused\n"


def test_live_shows_what_stands_in_the_way_of_the_model_list(run, write, engine):
    engine.answers["/v1/models"] = (401, b'{"error":"Unauthorized"}')
    result = run("check", write(f"pools: {{a: {{backends: ['{engine.url}']}}}}\n"), "--live")
    assert result.exit_code == 0
    assert "/v1/models: status 401" in result.stdout


def test_without_live_nobody_is_asked(run, write, engine):
    assert run("check", write(f"pools: {{a: {{backends: ['{engine.url}']}}}}\n")).exit_code == 0
    assert engine.keys == []


def test_the_schema_is_json(run):
    result = run("schema")
    assert result.exit_code == 0
    schema = json.loads(result.stdout)
    assert schema["$schema"].endswith("2020-12/schema")
    assert "session_affinity" in result.stdout
