"""`python -m bench.install [--litellm] [--smg]`: put the peers from PyPI, and llmproxy compiled, into bench/.peers."""

import argparse
import os
import subprocess
import sys

from bench.peers.base import VENVS
from bench.peers.llmproxy import COMPILED, SOURCE, CompiledLlmproxy, source_digest

# Pinned, so that figures of two days can be compared. LiteLLM also because releases of it have twice been replaced by
# malicious ones (2026-03: 1.82.7 and 1.82.8; 1.107.0): look before moving that one. Each has a venv of its own.
PINS = {"vllm-router": "vllm-router==0.1.17", "smg": "smg==1.13.0", "litellm": "litellm[proxy]==1.99.4"}


def install(package: str) -> int:
    """Install one peer, from wheels only; the exit status of pip."""
    venv = VENVS / package
    if not (venv / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check"]
    return subprocess.run([*pip, "--only-binary", ":all:", PINS[package]], check=False).returncode


def compile_llmproxy() -> int:
    """Build this checkout with its hot path compiled, unless it is there already; the exit status of pip."""
    if CompiledLlmproxy().missing() is None:
        return 0
    print("compiling llmproxy (about two minutes) ...", flush=True)
    if not (COMPILED / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(COMPILED)], check=True)
    digest = source_digest()
    pip = [str(COMPILED / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    constraints = ["-c", str(SOURCE / "constraints.txt")]
    done = subprocess.run(
        [*pip, *constraints, "--force-reinstall", f"{SOURCE}[redis]"],
        env={**os.environ, "LLMPROXY_COMPILE": "1"},
        check=False,
    )
    if done.returncode == 0:
        (COMPILED / "source").write_text(digest)
    return done.returncode


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.install", description=__doc__)
    parser.add_argument("--litellm", action="store_true", help="also LiteLLM's proxy (a few hundred megabytes)")
    parser.add_argument("--smg", action="store_true", help="also the Shepherd Model Gateway")
    options = parser.parse_args()
    wanted = ["vllm-router", *(["smg"] if options.smg else []), *(["litellm"] if options.litellm else [])]
    return max(*(install(package) for package in wanted), compile_llmproxy())


if __name__ == "__main__":
    sys.exit(main())
