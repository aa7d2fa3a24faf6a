"""`python -m bench.install [--litellm] [--smg]`: put the peers that come from PyPI into bench/.peers."""

import argparse
import subprocess
import sys

from bench.peers.base import VENV


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.install", description=__doc__)
    parser.add_argument("--litellm", action="store_true", help="also LiteLLM's proxy (a few hundred megabytes)")
    parser.add_argument("--smg", action="store_true", help="also the Shepherd Model Gateway")
    options = parser.parse_args()
    packages = ["vllm-router"]
    packages += ["smg"] if options.smg else []
    packages += ["litellm[proxy]"] if options.litellm else []
    if not (VENV / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    return subprocess.run([str(VENV / "bin" / "python"), "-m", "pip", "install", *packages], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
