"""Several redis-servers that belong together: a primary, its replica and the sentinels over both; a cluster."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.harness.certificates import Authority
from tests.harness.redis_server import RedisServer, wait_for

MASTER = "llm"
SLOTS = 16_384
DOWN_AFTER_MS = 400
"""How long a server is silent before the others take it for dead."""


class Guard:
    """TLS between all of them, which asks everybody for a certificate, and one user who may do anything."""

    def __init__(self, authority: Authority, login: tuple[str, str]) -> None:
        self.authority = authority
        self.login = login
        self._shown = authority.issue("proxy")

    @property
    def options(self) -> tuple[str, ...]:
        """Of servers."""
        user, password = self.login
        more = ("--tls-auth-clients", "yes", "--tls-replication", "yes", "--tls-cluster", "yes")
        return (*more, "--masteruser", user, "--masterauth", password)

    def lines(self, folder: Path) -> list[str]:
        """Of a sentinel's file."""
        certificate, key = self.authority.issue(f"{folder.name}-sentinel")
        user, password = self.login
        return [
            f"tls-cert-file {certificate}",
            f"tls-key-file {key}",
            f"tls-ca-cert-file {self.authority.ca}",
            "tls-auth-clients yes",
            "tls-replication yes",
            f"sentinel auth-user {MASTER} {user}",
            f"sentinel auth-pass {MASTER} {password}",
        ]

    def url(self, scheme: str, addresses: str, path: str = "", *more: str) -> str:
        """For a client that has a certificate."""
        certificate, key = self._shown
        options = ("tls=true", f"ca={self.authority.ca}", f"cert={certificate}", f"key={key}", *more)
        user, password = (quote(part, safe="") for part in self.login)
        return f"{scheme}://{user}:{password}@{addresses}{path}?{'&'.join(options)}"

    def servers(self) -> dict[str, Any]:
        """What each server is made with."""
        return {"authority": self.authority, "login": self.login}


class SentinelServer(RedisServer):
    """Watches `primary`. It writes down what it finds, so it has a file for its settings."""

    def __init__(
        self,
        folder: Path,
        primary: RedisServer,
        quorum: int,
        *options: str,
        password: str = "",
        guard: Guard | None = None,
    ) -> None:
        super().__init__(folder, authority=None if guard is None else guard.authority)
        self._password = password
        self._guard = guard
        self._lines = [
            f"sentinel monitor {MASTER} 127.0.0.1 {primary.port} {quorum}",
            f"sentinel down-after-milliseconds {MASTER} {DOWN_AFTER_MS}",
            f"sentinel failover-timeout {MASTER} 3000",
            *options,
        ]

    def command(self) -> list[str]:
        path = self.folder / "sentinel.conf"
        own = [f"port {self.port}"] if self._guard is None else ["port 0", f"tls-port {self.port}"]
        own += ["bind 127.0.0.1", f"dir {self.folder}"]
        own += [f"requirepass {self._password}"] * bool(self._password)
        more = [] if self._guard is None else self._guard.lines(self.folder)
        path.write_text("\n".join([*own, *self._lines, *more, ""]))
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

    def __init__(
        self, folder: Path, *, sentinels: int = 1, sentinel_password: str = "", guard: Guard | None = None
    ) -> None:
        self._folder = folder
        self._guard = guard
        self._count = sentinels
        self._password = sentinel_password
        self._stack = ExitStack()
        self.sentinels: list[SentinelServer] = []

    def __enter__(self) -> "Watched":
        options, kept = ((), {}) if self._guard is None else (self._guard.options, self._guard.servers())
        self.primary = self._stack.enter_context(RedisServer(self._folder / "a", *options, **kept))
        follow = ("--replicaof", "127.0.0.1", str(self.primary.port), "--repl-diskless-sync-delay", "0")
        self.replica = self._stack.enter_context(RedisServer(self._folder / "b", *options, *follow, **kept))
        self.primary.client().config_set("repl-diskless-sync-delay", 0)
        replica = self.replica.client()
        wait_for(lambda: replica.info("replication")["master_link_status"] == "up", "a replica that follows")
        for number in range(self._count):
            quorum = self._count // 2 + 1
            server = SentinelServer(
                self._folder / f"s{number}", self.primary, quorum, password=self._password, guard=self._guard
            )
            self.sentinels.append(self._stack.enter_context(server))
        for server in self.sentinels:
            wait_for(lambda server=server: self._knows_all(server), "a sentinel that knows the others and the replica")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def url(self, *before: str) -> str:
        """`before` are addresses to try first."""
        addresses = ",".join([*before, *(sentinel.address for sentinel in self.sentinels)])
        options = [f"sentinel_password={self._password}"] * bool(self._password)
        if self._guard is not None:
            return self._guard.url("sentinel", addresses, f"/{MASTER}", *options)
        return f"sentinel://{addresses}/{MASTER}" + "?" * bool(options) + "".join(options)

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

    def __init__(self, folder: Path, guard: Guard | None = None) -> None:
        self._folder = folder
        self._guard = guard
        self._stack = ExitStack()
        self.nodes: list[RedisServer] = []

    def __enter__(self) -> "Cluster":
        for number in range(4):
            options = ("--cluster-enabled", "yes", "--cluster-node-timeout", str(DOWN_AFTER_MS))
            more = ("--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0")
            # A replica that has heard nothing yet is not shown to clients.
            more += ("--repl-ping-replica-period", "1")
            if self._guard is not None:
                more += self._guard.options
            server = RedisServer(
                self._folder / f"n{number}", *options, *more, **({} if self._guard is None else self._guard.servers())
            )
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
        addresses = ",".join(node.address for node in self.nodes)
        return f"cluster://{addresses}" if self._guard is None else self._guard.url("cluster", addresses)

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
            login = () if self._guard is None else ("AUTH2", *self._guard.login)
            here.execute_command("MIGRATE", *where, "REPLACE", *login, "KEYS", *keys)
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
