"""NVML without a GPU: a library of our own in the place of NVIDIA's, at the C API that pynvml calls."""

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pynvml
import pytest

SOURCE = Path(__file__).parent / "nvml_double.c"
NAME = "libnvidia-ml.so.1"


def compiled(directory: Path, *flags: str) -> Path:
    """The double as a shared library of the real one's name. Skips the test where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler, so no NVML double")
    library = directory / NAME
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", *flags, "-o", library, SOURCE], check=True)
    return library


class NvmlDouble:
    """The double, loaded in pynvml's place for the real library. `absent`: the loader finds none."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.library = ctypes.CDLL(str(path))
        self.absent = False
        self.loads = 0
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(pynvml, "CDLL", self._load)
        self.unload()

    def unload(self) -> None:
        """pynvml as it is when just imported."""
        self._monkeypatch.setattr(pynvml, "nvmlLib", None)
        self._monkeypatch.setattr(pynvml, "_nvmlLib_refcount", 0)
        self._monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})

    def _load(self, name: str) -> ctypes.CDLL:
        assert name == NAME
        self.loads += 1
        if self.absent:
            raise OSError(f"{name}: cannot open shared object file: No such file or directory")
        return self.library

    def refuse(self, error: int) -> None:
        """`nvmlInit` fails with `error`, or with 0 no more."""
        self.library.double_refuse(error)

    def lose(self, index: int, lost: bool = True) -> None:
        """The GPU has fallen off the bus."""
        self.library.double_lose(index, int(lost))

    def stick(self, on: bool = True) -> None:
        """Calls do not return."""
        self.library.double_stick(int(on))

    def set(self, index: int, utilization: int, reasons: int = 0) -> None:
        self.library.double_set(index, utilization, ctypes.c_ulonglong(reasons))

    def mig(self, index: int, on: bool = True) -> None:
        self.library.double_mig(index, int(on))

    def count(self, gpus: int) -> None:
        self.library.double_count(gpus)

    @property
    def opened(self) -> Any:
        """How often it was opened and not closed."""
        return self.library.double_opened()

    @property
    def calls(self) -> Any:
        return self.library.double_calls()
