"""`python -m llmproxy.emulator`: the `emulate` command by itself, for those who need a process to kill."""

import typer

from llmproxy.emulator.command import emulate

typer.run(emulate)
