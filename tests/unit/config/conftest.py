"""What the configuration's tests share: a minimal text, the errors of a text as lines, TLS files."""

from pathlib import Path

import pytest

from llmproxy.config import ConfigError, parse

TLS = Path(__file__).parent / "tls"
MINIMAL = 'pools: {main: {backends: ["http://10.0.1.10:8000"]}}\n'


@pytest.fixture
def tls():
    return TLS


@pytest.fixture
def errors_of():
    """Parses `text` and returns its errors as lines, without the file's name; fails when there are none."""

    def errors_of(text, **options):
        options.setdefault("env", {})
        with pytest.raises(ConfigError) as caught:
            parse(text, "f", **options)
        return [str(problem).removeprefix("f:") for problem in caught.value.problems]

    return errors_of


@pytest.fixture
def with_minimal():
    """`text` with a pool that makes it whole; the pool comes last, so line numbers are those of `text`."""
    return lambda text: text.rstrip("\n") + "\n" + MINIMAL
