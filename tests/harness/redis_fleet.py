"""Several redis-servers that belong together: a primary, its replica and the sentinels over both; a cluster."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.harness.redis_server import RedisServer, wait_for

MASTER = "llm"
SLOTS = 16_384
DOWN_AFTER_MS = 400
"""How long a server is silent before the others take it for dead."""


class SentinelServer(RedisServer):
    """Watches `primary`. It writes down what it finds, so it has a file for its settings."""

    def __init__(self, folder: Path, primary: RedisServer, quorum: int, *options: str, password: str = "") -> None:
        super().__init__(folder, login=None)
        self._password = password
        self._lines = [
            f"sentinel monitor {MASTER} 127.0.0.1 {primary.port} {quorum}",
            f"sentinel down-after-milliseconds {MASTER} {DOWN_AFTER_MS}",
            f"sentinel failover-timeout {MASTER} 3000",
            *options,
        ]

    def command(self) -> list[str]:
        path = self.folder / "sentinel.conf"
        own = [f"port {self.port}", "bind 127.0.0.1", f"dir {self.folder}"]
        own += [f"requirepass {self._password}"] * bool(self._password)
        path.write_text("\n".join([*own, *self._lines, ""]))
        return ["redis-server", str(path), "--sentinel"]

    def client(self) -> Any:
        client = super().client()
        if self._password:
            client.connection_pool.connection_kwargs["password"] = self._password
        return client

    def master_port(self) -> int:
        _, port = self.client().execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)
        return int(port)


class Watched:
    """`with Watched(folder) as redis:` a primary with a replica, and sentinels that agree on who is which."""

    def __init__(self, folder: Path, *, sentinels: int = 1, sentinel_password: str = "") -> None:
        self._folder = folder
        self._count = sentinels
        self._password = sentinel_password
        self._stack = ExitStack()
        self.sentinels: list[SentinelServer] = []

    def __enter__(self) -> "Watched":
        self.primary = self._stack.enter_context(RedisServer(self._folder / "a"))
        follow = ("--replicaof", "127.0.0.1", str(self.primary.port), "--repl-diskless-sync-delay", "0")
        self.replica = self._stack.enter_context(RedisServer(self._folder / "b", *follow))
        self.primary.client().config_set("repl-diskless-sync-delay", 0)
        replica = self.replica.client()
        wait_for(lambda: replica.info("replication")["master_link_status"] == "up", "a replica that follows")
        for number in range(self._count):
            quorum = self._count // 2 + 1
            server = SentinelServer(self._folder / f"s{number}", self.primary, quorum, password=self._password)
            self.sentinels.append(self._stack.enter_context(server))
        for server in self.sentinels:
            wait_for(lambda server=server: self._knows_all(server), "a sentinel that knows the others and the replica")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def url(self, *before: str) -> str:
        """`before` are addresses to try first."""
        addresses = [*before, *(sentinel.address for sentinel in self.sentinels)]
        return f"sentinel://{','.join(addresses)}/{MASTER}" + (
            f"?sentinel_password={self._password}" if self._password else ""
        )

    def replica_heard_all(self) -> None:
        """Nothing is under way to the replica."""
        _heard_all(self.primary.client(), self.replica.client())

    def fail_over(self, end: Callable[[], None] | None = None) -> None:
        """Kill the primary (or `end` it otherwise) and wait until the sentinels name the replica in its place."""
        (end or self.primary.kill)()
        wait_for(self._took_over, "the replica in the primary's place")

    def _took_over(self) -> bool:
        return all(one.master_port() == self.replica.port for one in self.sentinels) and (
            self.replica.client().info("replication")["role"] == "master"
        )

    def _knows_all(self, sentinel: SentinelServer) -> bool:
        found = sentinel.client().sentinel_master(MASTER)
        return bool(found["num-slaves"] == 1 and found["num-other-sentinels"] == self._count - 1)


class Cluster:
    """`with Cluster(folder) as redis:` three primaries with a third of the slots each, the first with a replica."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self.nodes: list[RedisServer] = []

    def __enter__(self) -> "Cluster":
        for number in range(4):
            options = ("--cluster-enabled", "yes", "--cluster-node-timeout", str(DOWN_AFTER_MS))
            more = ("--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0")
            # A replica that has heard nothing yet is not shown to clients.
            more += ("--repl-ping-replica-period", "1")
            server = RedisServer(self._folder / f"n{number}", *options, *more)
            self.nodes.append(self._stack.enter_context(server))
        self._clients = [node.client() for node in self.nodes]
        first = self._clients[0]
        for number, client in enumerate(self._clients):
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number < 3:
                begin, end = SLOTS * number // 3, SLOTS * (number + 1) // 3 - 1
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", begin, end)
            if number:
                first.execute_command("CLUSTER", "MEET", "127.0.0.1", self.nodes[number].port)
        replica = self._clients[3]
        wait_for(lambda: replica.execute_command("CLUSTER", "REPLICATE", self.id(0)), "a replica of the first")
        for client in self._clients:
            wait_for(lambda client=client: self._whole(client), "nodes that all know one another")
        wait_for(lambda: replica.info("replication")["master_link_status"] == "up", "a replica that follows")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def url(self) -> str:
        return "cluster://" + ",".join(node.address for node in self.nodes)

    def id(self, number: int) -> str:
        """What node `number` is called among the others."""
        return str(self._clients[number].execute_command("CLUSTER", "MYID"), "ascii")

    def slot(self, key: str) -> int:
        return int(self._clients[0].execute_command("CLUSTER", "KEYSLOT", key))

    def owner(self, key: str, asked: int = 1) -> int:
        """Which node has `key`'s slot, says node `asked`."""
        slot = self.slot(key) if asked == 0 else int(self._clients[asked].execute_command("CLUSTER", "KEYSLOT", key))
        for begin, end, master, *_ in self._clients[asked].execute_command("CLUSTER", "SLOTS"):
            if begin <= slot <= end:
                return next(number for number, node in enumerate(self.nodes) if node.port == master[1])
        raise AssertionError(f"nobody has slot {slot}")

    def migrate(self, key: str, target: int, between: Any = None) -> None:
        """Give `key`'s slot and all in it to node `target`, as `redis-cli --cluster reshard` does. `between` is called
        when the slot is on its way, and its keys are still where they were."""
        source, slot = self.owner(key), self.slot(key)
        here, there = self._clients[source], self._clients[target]
        there.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", self.id(source))
        here.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", self.id(target))
        if between is not None:
            between()
        while keys := here.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
            where = ("127.0.0.1", self.nodes[target].port, "", 0, 5000)
            here.execute_command("MIGRATE", *where, "REPLACE", "KEYS", *keys)
        # All of them, not these two alone: what is told on takes a while.
        for client in (there, here, *self._clients[:3]):
            client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", self.id(target))

    def heard_all(self) -> None:
        """Nothing is under way to the replica."""
        _heard_all(self._clients[0], self._clients[3])

    def _whole(self, client: Any) -> bool:
        state = client.execute_command("CLUSTER", "INFO")
        if not isinstance(state, dict):
            state = dict(line.split(":") for line in state.decode().splitlines())
        slots = client.execute_command("CLUSTER", "SLOTS")
        primaries = state["cluster_state"] == "ok" and state["cluster_known_nodes"] == "4" and len(slots) == 3
        return bool(primaries and sum(len(entry) - 2 for entry in slots) == 4)


def _heard_all(primary: Any, replica: Any) -> None:
    """Of what the primary was told until now."""
    said = primary.info("replication")["master_repl_offset"]
    wait_for(lambda: replica.info("replication")["master_repl_offset"] >= said, "a replica that heard all")
