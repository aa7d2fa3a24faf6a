import pytest

from llmproxy.pipeline.body import decode
from llmproxy.pipeline.metering import most_tokens


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{}", None),
        (b'{"max_tokens": 7}', 7),
        (b'{"max_completion_tokens": 5, "max_tokens": 7}', 5),
        (b'{"max_output_tokens": 9}', 9),
        (b'{"max_tokens": 7, "n": 3}', 21),
        (b'{"max_tokens": null, "n": null}', None),
        (b'{"max_tokens": -7}', None),
        (b'{"max_tokens": 1e400, "n": 1e400}', None),
        (b'{"max_tokens": [[7]], "n": {"a": 1}}', None),
        (b'{"max_tokens": 7, "n": "x"}', 7),
        (b'{"max_tokens": "7"}', None),
        (b'{"max_tokens": true}', None),
        (b'{"max_tokens": 99999999999999999999}', None),
    ],
)
def test_the_most_tokens_an_answer_may_have(body: bytes, expected: int | None) -> None:
    assert most_tokens(decode(body)) == expected
