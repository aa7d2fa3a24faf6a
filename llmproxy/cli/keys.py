"""`llmproxy keys`: keys in Redis, made and taken back while proxies run."""

from pathlib import Path
from typing import Annotated

import typer

keys = typer.Typer(
    help="Make, list, replace and revoke keys in the key store (Redis); running proxies hear of it at once.",
    no_args_is_help=True,
)
ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="Take the store from this file's auth.store.", show_default=False)
]
StoreUrl = Annotated[
    str,
    typer.Option("--store", envvar="LLMPROXY_KEYS_STORE", help="redis://host:6379/0, when there is no --config."),
]
Name = Annotated[str, typer.Argument(help="The key's name.")]


@keys.command()
def create(
    name: Name,
    tier: Annotated[str, typer.Option(help="Its tier.")],
    tenant: Annotated[str, typer.Option(help="Whose it is; by default, its name.")] = "",
    model: Annotated[list[str] | None, typer.Option(help="A model it may be used for (repeat; or llama-*).")] = None,
    expires: Annotated[str, typer.Option(help="How long it is good (90d, 12h) or until when (2027-01-31).")] = "",
    priority: Annotated[str, typer.Option(help="low, normal or high, instead of its tier's.")] = "",
    limit: Annotated[list[str] | None, typer.Option(help="Its own limit: requests_per_minute=60 (repeat).")] = None,
    config: ConfigFile = None,
    store: StoreUrl = "",
) -> None:
    """Make a key. It is shown now, and never again: only its SHA-256 is stored."""
    from llmproxy.cli.key_work import Work

    with Work(config, store) as work:
        record = work.record(name, tier, tenant, model or [], expires, priority, limit or [])
        typer.echo(work.create(record))


@keys.command(name="list")
def list_keys(
    config: ConfigFile = None,
    store: StoreUrl = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line instead of a table.")] = False,
) -> None:
    """Show all keys on record, without the keys."""
    from llmproxy.cli.key_work import Work

    with Work(config, store) as work:
        work.show(as_json)


@keys.command()
def revoke(name: Name, config: ConfigFile = None, store: StoreUrl = "") -> None:
    """End a key now."""
    from llmproxy.cli.key_work import Work

    with Work(config, store) as work:
        count = work.revoke(name)
        typer.echo(f"revoked {name}" + (f" ({count} keys of that name)" if count > 1 else ""), err=True)


@keys.command()
def rotate(
    name: Name,
    grace: Annotated[str, typer.Option(help="How long the old key is good beside the new one.")] = "0s",
    config: ConfigFile = None,
    store: StoreUrl = "",
) -> None:
    """Make a new key with an old one's name and rights. It is shown now, and never again."""
    from llmproxy.cli.key_work import Work

    with Work(config, store) as work:
        typer.echo(work.rotate(name, grace))
