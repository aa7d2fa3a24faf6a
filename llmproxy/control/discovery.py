"""Backends from a watched file (`discovery: {file: PATH}`): a list as under `backends`, in YAML or JSON.

Whoever writes it (a script, a sidecar, a mounted ConfigMap) need not reload the proxy. What cannot be read changes
nothing, and is said once; a file that is missing from the beginning is an empty list, one that vanishes leaves what it
said. An empty list is taken at its word.
"""

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from llmproxy.config.backend import BackendConfig
from llmproxy.config.model import PoolConfig
from llmproxy.control.file_watch import FileWatch
from llmproxy.control.registrar import Registrar
from llmproxy.control.tasks import end_tasks
from llmproxy.core.backend import BackendSpec

SOURCE: Final = "file"
LOOK_EVERY_S: Final = 1.0
_READ_MAX_BYTES: Final = 4 * 1024**2

_log = logging.getLogger("llmproxy.control.discovery")


class FileDiscovery:
    """All pools' files, looked at by one task. `apply` with each configuration."""

    def __init__(self, registrar: Registrar, *, look_every_s: float = LOOK_EVERY_S) -> None:
        self._registrar = registrar
        self._look_every_s = look_every_s
        self._files: dict[str, Path] = {}
        self._watches: dict[str, FileWatch] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="discovery")

    async def stop(self) -> None:
        task, self._task = self._task, None
        await end_tasks(task)

    async def apply(self, pools: Mapping[str, PoolConfig]) -> None:
        """Read new files at once, and forget what came from files that are no longer named."""
        wanted = {name: Path(pool.discovery.file) for name, pool in pools.items() if pool.discovery.file}
        for name in [name for name, file in self._files.items() if wanted.get(name) != file]:
            del self._files[name], self._watches[name]
            self._registrar.announce(name, SOURCE, ())
        for name, file in wanted.items():
            if name not in self._files:
                self._files[name], self._watches[name] = file, await asyncio.to_thread(FileWatch, [file])
                await self._read(name)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._look_every_s)
            for name, watch in list(self._watches.items()):
                if await asyncio.to_thread(watch.look):
                    await self._read(name)

    async def _read(self, pool: str) -> None:
        file = self._files.get(pool)
        if file is None:
            return
        try:
            found = await asyncio.to_thread(read_backends, file, pool)
        except FileNotFoundError:
            _log.warning("pool %s: there is no %s yet", pool, file)
            return
        except (OSError, ValueError) as error:
            _log.error("pool %s: %s is not taken: %s", pool, file, error)
            return
        if self._files.get(pool) == file:
            self._registrar.announce(pool, SOURCE, found)


def read_backends(file: Path, pool: str) -> list[BackendSpec]:
    """What the file says. Raises OSError and ValueError."""
    with file.open("rb") as content:
        text = content.read(_READ_MAX_BYTES)
    try:
        rows: Any = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"it is no YAML: {str(error).splitlines()[0]}") from None
    if isinstance(rows, Mapping) and rows.keys() == {"backends"}:
        rows = rows["backends"]
    if not isinstance(rows, list):
        raise ValueError("it must be a list of backends")
    found: dict[str, BackendSpec] = {}
    for number, row in enumerate(rows):
        try:
            one = BackendConfig.model_validate(row)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            where = ".".join(map(str, (number, *first["loc"])))
            raise ValueError(f"backend {where}: {first['msg']}") from None
        if one.resolve:
            raise ValueError(f"backend {number}: resolve is for backends of the configuration")
        spec = one.spec(pool)
        if spec.id in found:
            raise ValueError(f"backend {number}: the id {spec.id!r} is there twice")
        found[spec.id] = spec
    return list(found.values())
