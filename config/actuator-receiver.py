"""A receiver for the webhook actuator, to begin from: Python's standard library only.

    LLMPROXY_WEBHOOK_SECRET=... python actuator-receiver.py [PORT]

It answers every genuine message with the instances there are, and calls `Cluster.scale` when their number should
change. This `Cluster` only keeps a list: put your own machines behind it.
"""

import hashlib
import hmac
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any

TOLERANCE_S = 300


def is_genuine(secret: str, timestamp: str, signature: str, body: bytes) -> bool:
    """Whether somebody who knows the secret sent this, and lately."""
    if (
        not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12)
        or abs(time.time() - int(timestamp)) > TOLERANCE_S
    ):
        return False
    digest = hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(signature.encode(), f"v1={digest}".encode())


class Cluster:
    """Your machines."""

    def __init__(self) -> None:
        self.instances: list[dict[str, Any]] = []
        self._made = 0

    def scale(self, pool: str, tiers: dict[str, int], leaving: list[str]) -> None:
        """Those in `leaving` go in any case: drained, or given up. Then have so many instances of each tier of
        capacity; a pool without tiers has one without a name."""
        staying = [one for one in self.instances_of(pool) if one["id"] not in leaving]
        self.instances = [one for one in self.instances if one["pool"] != pool]
        for tier, replicas in tiers.items():
            kept = [one for one in staying if one["tier"] == tier][:replicas]
            self.instances += [*kept, *(self._make(pool, tier) for _ in range(replicas - len(kept)))]

    def instances_of(self, pool: str) -> list[dict[str, Any]]:
        """Those of one pool: several pools may have this receiver."""
        return [one for one in self.instances if one["pool"] == pool]

    def _make(self, pool: str, tier: str) -> dict[str, Any]:
        self._made += 1
        return {"id": f"{pool}-{self._made}", "url": f"http://10.0.0.{self._made}:8000", "tier": tier, "pool": pool}


class Receiver:
    """What every message must pass before it counts."""

    def __init__(self, secret: str, cluster: Cluster) -> None:
        self._secret = secret
        self._cluster = cluster
        self._lock = Lock()
        self._fences: dict[str, int] = {}
        self._seen: dict[str, None] = {}

    def receive(self, headers: Any, body: bytes) -> tuple[int, dict[str, Any]]:
        """The status and the answer."""
        timestamp, signature = headers.get("X-LLMProxy-Timestamp", ""), headers.get("X-LLMProxy-Signature", "")
        if not is_genuine(self._secret, timestamp, signature, body):
            return 401, {"error": "the signature is wrong, or too old"}
        message = json.loads(body)
        pool = message["pool"]
        with self._lock:
            if message["action"] == "scale":
                # Each pool has a leader of its own.
                if message["fence"] < self._fences.get(pool, 0):
                    return 409, {"error": "a newer leader has spoken"}
                self._fences[pool] = message["fence"]
                # A message that is sent again, because its answer was lost, must not count again.
                if message["id"] not in self._seen:
                    tiers = message.get("tiers", {"": message["replicas"]})
                    self._cluster.scale(pool, tiers, message["leaving"])
                    # Only now: what failed is to be tried when it comes again.
                    self._seen[message["id"]] = None
                while len(self._seen) > 1000:
                    del self._seen[next(iter(self._seen))]
            return 200, {"replicas": self._cluster.instances_of(pool)}


def serve(receiver: Receiver, port: int) -> ThreadingHTTPServer:
    """A server for `receiver` on loopback; call its `serve_forever`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", "0"))
            if length > 1024**2:
                self.send_error(413)
                return
            status, answer = receiver.receive(self.headers, self.rfile.read(length))
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


if __name__ == "__main__":
    server = serve(
        Receiver(os.environ["LLMPROXY_WEBHOOK_SECRET"], Cluster()), int(sys.argv[1]) if len(sys.argv) > 1 else 9000
    )
    server.serve_forever()
