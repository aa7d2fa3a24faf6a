"""The configuration: a YAML file becomes frozen, typed values, or a list of everything that is wrong with it.

The way of a file (`loader`):

1. `document` reads YAML into a tree whose nodes know their lines. It refuses keys given twice, tags, more than one
   document, and aliases that expand without bound. Scalars follow YAML 1.2: `off` is text.
2. `substitution` puts environment variables and secret files into scalars. Parsing is over by then, so a value can
   add no key and no list item, whatever it holds.
3. `model` validates: types, units, bounds, unknown keys. What one section knows alone is checked there.
4. `checks` compares the sections: references, unique ids, ports. It works on a `Draft`, whose valid parts are
   checked even when others are not, so one run reports everything.
5. Each finding is located in the tree and written as `file:line: path: message`.

Invariants:

* `load` and `parse` give a `Config` or raise `ConfigError`; no input makes them raise anything else.
* No message, warning or repr holds a value that came from the environment or from a secret's file.
* A `Config` never changes. Reload makes a new one and swaps it whole, so a request sees one configuration only.
* Field descriptions are the manual. `reference` makes docs/configuration.md of them, `schema` the JSON Schema.

Routing policies are not known here (a policy's options arrive as a plain dict): the caller hands `load` a
`PolicyCheck`, which may say what is wrong with a policy's name and options.
"""

from llmproxy.config.backend import BackendConfig
from llmproxy.config.checks import PolicyCheck
from llmproxy.config.loader import load, parse
from llmproxy.config.model import Config, ModelConfig, PolicyConfig, PoolConfig, RouteConfig
from llmproxy.config.problem import ConfigError, Problem

__all__ = [
    "BackendConfig",
    "Config",
    "ConfigError",
    "ModelConfig",
    "PolicyCheck",
    "PolicyConfig",
    "PoolConfig",
    "Problem",
    "RouteConfig",
    "load",
    "parse",
]
