"""`llmproxy schema`."""

import typer


def schema() -> None:
    """Print the JSON Schema of the configuration file, for editors.

    With the YAML language server, save it as llmproxy.schema.json and begin the configuration with the line
    "# yaml-language-server: $schema=llmproxy.schema.json".
    """
    import json

    from llmproxy.config.schema import json_schema
    from llmproxy.policy.routing.registry import names

    typer.echo(json.dumps(json_schema(names()), indent=2))
