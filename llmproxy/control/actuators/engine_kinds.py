"""How engines are started as processes of this machine, and where they find room on it."""

import hashlib
import shlex
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llmproxy.config.scaling import devices
from llmproxy.control.actuators.base import ActuatorError


@dataclass(frozen=True, slots=True)
class EngineKind:
    """How engines of one tier of capacity are started: the command, beside `ProcessOptions.env` this, and its own sets
    of GPUs."""

    command: str
    gpu: str = ""
    gpus: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)

    def arguments(self, **values: str) -> list[str]:
        """The words of its command, with `values` put in by their names, and the kind's own."""
        arguments = shlex.split(self.command)
        for name, value in {**values, "gpu": self.gpu}.items():
            arguments = [argument.replace(f"{{{name}}}", value) for argument in arguments]
        return arguments


@dataclass(frozen=True, slots=True)
class ProcessOptions:
    command: str
    """`{port}`, `{id}` and `{gpus}` are put in; `{tier}` and `{gpu}` too where there are tiers."""
    directory: Path
    """For the state file and the logs."""
    host: str = "127.0.0.1"
    ports: tuple[int, int] | None = None
    """First and last; None takes any that is free."""
    gpus: tuple[str, ...] = ()
    """Sets of devices; an engine gets one, and when all are taken none can be started. None: no such limit."""
    env: Mapping[str, str] = field(default_factory=dict)
    stop_timeout_s: float = 30.0
    log_max_bytes: int = 50 * 1024**2
    on_exit_stop: bool = False
    """Whether engines end with the proxy."""
    tiers: Mapping[str, EngineKind] = field(default_factory=dict)
    """By name; empty: all engines are of one kind, which has no name."""

    def kind(self, tier: str) -> EngineKind | None:
        """None: there is no such tier (any more)."""
        return self.tiers.get(tier) if self.tiers else None if tier else EngineKind(self.command, gpus=self.gpus)

    def digest(self, kind: EngineKind) -> str:
        """Differs where an engine of this kind would be started otherwise."""
        env = {**self.env, **kind.env}
        text = "\0".join([kind.command, *(f"{name}={value}" for name, value in sorted(env.items()))])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def free_gpus(kind: EngineKind, taken: Collection[str]) -> tuple[str, ...]:
    """One of its sets of which nobody has any; none where it has no sets. Raises `ActuatorError` when all are taken."""
    if not kind.gpus:
        return ()
    in_use = {device for gpus in taken for device in devices(gpus)}
    for gpus in kind.gpus:
        if in_use.isdisjoint(devices(gpus)):
            return (gpus,)
    raise ActuatorError(f"all {len(kind.gpus)} sets of GPUs are in use")


def is_full(options: ProcessOptions, kind: EngineKind, gpus: Collection[str], ports: Collection[int]) -> bool:
    """Whether engines of ours have all there is of `gpus` or of `ports`."""
    try:
        free_gpus(kind, gpus)
    except ActuatorError:
        return True
    first, last = options.ports or (0, -1)
    return first <= last and set(range(first, last + 1)) <= set(ports)


def free_port(options: ProcessOptions, taken: Collection[int]) -> int:
    """One that can be listened at. Raises `ActuatorError` when there is none."""
    first, last = options.ports or (0, 0)
    for port in range(first, last + 1):
        if port in taken:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((options.host, port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            return found
    raise ActuatorError(f"no port from {first} to {last} is free")
