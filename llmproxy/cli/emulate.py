"""`llmproxy emulate`. The command lives beside the emulator, which also runs it as `python -m llmproxy.emulator`."""

from llmproxy.emulator.command import emulate

__all__ = ["emulate"]
