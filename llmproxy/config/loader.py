"""A file, or its text, to a `Config`: read, parse, substitute, validate, cross-check; or everything that is wrong."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path as FilePath

from pydantic import ValidationError

from llmproxy.config.checks import Finding, PolicyCheck, advice, cross_check
from llmproxy.config.document import FILE_MAX_BYTES, Entries, Unreadable, place_of, read_document
from llmproxy.config.draft import Draft
from llmproxy.config.messages import explain
from llmproxy.config.model import Config
from llmproxy.config.problem import ConfigError, Path, Problem, dotted
from llmproxy.config.substitution import Substitution
from llmproxy.config.values import FileContext, OnFile


def load(
    path: str | os.PathLike[str],
    *,
    env: Mapping[str, str] | None = None,
    check_policy: PolicyCheck | None = None,
    on_warning: Callable[[Problem], None] | None = None,
    on_file: OnFile | None = None,
) -> Config:
    """The configuration in the file `path`. ConfigError says everything that is wrong with it.

    `env` is the process's environment unless given. `check_policy` judges each pool's policy and its options, which
    this package does not know. `on_warning` is called for what is valid but rarely meant. `on_file` is called with this
    file and each one that it names (secrets, certificates, authorities), before it is read and also when it is bad.
    """
    name = os.fspath(path)
    if on_file is not None:
        on_file(FilePath(name))
    try:
        with open(name, "rb") as file:
            content = file.read(FILE_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError([Problem(name, None, "", f"cannot be read: {reason}")]) from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem(name, line, "", "not UTF-8")]) from None
    return parse(
        text,
        name,
        base=FilePath(name).parent,
        env=env,
        check_policy=check_policy,
        on_warning=on_warning,
        on_file=on_file,
    )


def parse(
    text: str,
    name: str = "<config>",
    *,
    base: FilePath = FilePath(),
    env: Mapping[str, str] | None = None,
    check_policy: PolicyCheck | None = None,
    on_warning: Callable[[Problem], None] | None = None,
    on_file: OnFile | None = None,
) -> Config:
    """The configuration in `text`. `name` stands in messages; file names in it are relative to `base`."""
    faults: list[tuple[int, Path, str]] = []

    def report(line: int, path: Path, message: str) -> None:
        faults.append((line, path, message))

    try:
        root = read_document(text, report)
    except Unreadable as error:
        report(error.line, (), error.message)
        raise _refusal(name, faults, None) from None
    substitution = Substitution(os.environ if env is None else env, base, report, on_file=on_file)
    if not isinstance(root, Entries):
        report(root.line, (), "the file must be a mapping (key: value) of sections such as `pools`")
        raise _refusal(name, faults, None)
    config, findings = _validate(substitution.data(root), FileContext(base, on_file), check_policy)
    unknown = set(substitution.failed)
    faults += [
        (*place_of(root, path), message)
        for path, message in findings
        if not any(path[:length] in unknown for length in range(len(path) + 1))
    ]
    if faults or config is None:
        raise _refusal(name, faults, substitution)
    if on_warning is not None:
        for warning in _problems(
            name, [(*place_of(root, path), message) for path, message in advice(config)], substitution
        ):
            on_warning(warning)
    return config


def _validate(
    data: object, context: FileContext, check_policy: PolicyCheck | None
) -> tuple[Config | None, list[Finding]]:
    findings: list[Finding] = []
    config = None
    try:
        config = Config.model_validate(data, context=context)
    except ValidationError as error:
        findings += explain(error, Config)
    findings += cross_check(Draft(data, context), check_policy)
    return config, findings


def _refusal(name: str, faults: list[tuple[int, Path, str]], substitution: Substitution | None) -> ConfigError:
    return ConfigError(_problems(name, faults, substitution))


def _problems(name: str, faults: list[tuple[int, Path, str]], substitution: Substitution | None) -> list[Problem]:
    """Sorted by line, each once, with nothing in them that came from the environment or a secret's file."""
    found = dict.fromkeys(
        Problem(name, line, dotted(path), substitution.hide(message) if substitution is not None else message)
        for line, path, message in faults
    )
    return sorted(found, key=lambda problem: problem.line or 0)
