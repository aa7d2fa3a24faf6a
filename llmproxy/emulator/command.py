"""The `emulate` command: options as a user types them (milliseconds) into `EmulatorOptions` (seconds)."""

from pathlib import Path
from typing import Annotated

import typer

from llmproxy.emulator.options import EmulatorOptions
from llmproxy.emulator.run import run
from llmproxy.sim import EngineOptions
from llmproxy.sim.profile import read_profile


def emulate(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    model: Annotated[list[str] | None, typer.Option(help="Served model name; repeat for more.")] = None,
    name: Annotated[str, typer.Option(help="Sent as X-Emulator with every answer.")] = "",
    ttft: Annotated[float, typer.Option(min=0, help="Fixed part of the time to the first token, in ms.")] = 50.0,
    itl: Annotated[float, typer.Option(min=0, help="Time between the tokens of a lone request, in ms.")] = 20.0,
    prefill: Annotated[float, typer.Option(min=0, help="Time to compute a prompt token, in us.")] = 50.0,
    slowdown: Annotated[
        float, typer.Option(min=0, help="How much longer a step gets with each further request, as a share of --itl.")
    ] = 0.005,
    profile: Annotated[
        Path | None,
        typer.Option(help="Size and speed from a simulator's profile (YAML), instead of the options for them here."),
    ] = None,
    max_num_seqs: Annotated[int, typer.Option(min=1, help="Requests computed at a time; others wait.")] = 256,
    kv_blocks: Annotated[int, typer.Option(min=1, help="Blocks in the KV cache.")] = 8192,
    block_size: Annotated[int, typer.Option(min=1, help="Tokens in a KV block.")] = 16,
    max_model_len: Annotated[int, typer.Option(min=2, help="Longest prompt and output together.")] = 131072,
    max_num_queued_reqs: Annotated[
        int | None, typer.Option(min=0, help="Waiting requests beyond which new ones get 503.")
    ] = None,
    fail: Annotated[
        str, typer.Option(metavar="SPEC", help="Faults: KIND[=VALUE][:PROBABILITY][*COUNT][@SCOPE], comma-separated.")
    ] = "",
    startup: Annotated[float, typer.Option(min=0, help="Refuse connections for this many seconds first.")] = 0.0,
    shutdown_timeout: Annotated[
        float, typer.Option(min=0, help="Seconds running requests may take to finish on SIGTERM; 0 aborts them.")
    ] = 0.0,
    api_key: Annotated[str, typer.Option(help="Bearer token that /v1 wants.")] = "",
    seed: Annotated[int, typer.Option(help="Seeds faults that have a probability.")] = 0,
) -> None:
    """Run an emulated vLLM server: its API, timing, metrics and faults, without a model."""
    try:
        engine = EngineOptions(
            max_num_seqs=max_num_seqs,
            kv_blocks=kv_blocks,
            block_size=block_size,
            ttft_s=ttft / 1000,
            itl_s=itl / 1000,
            prefill_s_per_token=prefill / 1e6,
            batch_slowdown=slowdown,
        )
        if profile is not None:
            engine = read_profile(profile).engine_options()
        options = EmulatorOptions(
            host=host,
            port=port,
            models=tuple(model or ("emulated",)),
            name=name,
            engine=engine,
            max_model_len=max_model_len,
            max_queued=max_num_queued_reqs,
            fail=fail,
            startup_s=startup,
            shutdown_timeout_s=shutdown_timeout,
            api_key=api_key,
            seed=seed,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    raise typer.Exit(run(options))
