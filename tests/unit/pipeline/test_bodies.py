"""Bodies: what routing reads of them, at a cost that no body can drive up."""

import json
import tracemalloc

import pytest

from llmproxy.core.errors import BadRequest
from llmproxy.pipeline.body import asks_for_usage, decode, find_field, multipart_model, with_model, with_usage


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b"5",
        b"null",
        b"{}x",
        b"{'model': 1}",
        b'{"model": "\xff"}',
        b"\xef\xbb\xbf{}",
        b"[" * 99_999,
        b'{"a":' * 99_999,
        '{"model": "x"}'.encode("utf-16"),
        b'{"model": "a\nb"}',
        b'{"model": "x",}',
        b'{"stream": NaN}',
    ],
    ids=lambda body: repr(body)[:20],
)
def test_not_a_json_object(body):
    with pytest.raises(BadRequest) as raised:
        decode(body)
    assert raised.value.code == "invalid_json"


@pytest.mark.parametrize(
    "body", [b'{"n":"x","model":"\xff"}', b'{"model":7,"store":"\xff"}', b'{"n":[],"stream":"\xff\xff"}']
)
def test_bytes_that_are_no_text_beside_a_field_of_another_type(body):
    with pytest.raises(BadRequest) as raised:
        decode(body)
    assert raised.value.code == "invalid_json"


def test_only_what_routing_needs():
    body = decode(
        b'{"messages": [{"role": "user"}], "model": "m", "stream": true, "stream_options": {"a": 1}, "x": 1e999}'
    )
    assert (body.model, body.stream, body.stream_options, body.previous_response_id) == ("m", True, {"a": 1}, None)


@pytest.mark.parametrize("name", ["model", "stream", "stream_options", "store", "previous_response_id", "n"])
@pytest.mark.parametrize(("opening", "item", "closing"), [(b"[", b"[]", b"]"), (b"{", b'"a":[]', b"}")])
def test_what_is_large_and_of_another_type_is_not_decoded(name, opening, item, closing):
    body = b'{"%b":%b%b%b}' % (name.encode(), opening, b",".join([item] * 100_000), closing)
    tracemalloc.start()
    try:
        assert getattr(decode(body), name) is ...
        assert tracemalloc.get_traced_memory()[1] < len(body) / 10
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("options", "asks"),
    [
        (b"null", False),
        (b'{"include_usage": true}', True),
        (b'{"include_usage": false}', False),
        (b'{"include_usage": true, "of_tomorrow": 1.5}', True),
        (b'{"include_usage": 1}', True),
        (b'{"continuous_usage_stats": true}', False),
        (b'"include_usage"', False),
    ],
)
def test_whether_a_stream_asks_for_its_usage(options, asks):
    assert asks_for_usage(decode(b'{"stream_options": %b}' % options).stream_options) is asks


@pytest.mark.parametrize(
    ("body", "after"),
    [
        (b'{"model":"a"}', b'{"model":"NEW"}'),
        (b' {\n "model" :\t"a" , "x":1}\n', b' {\n "model" :\t"NEW" , "x":1}\n'),
        (b'{"x":{"model":"no"},"model":"a"}', b'{"x":{"model":"no"},"model":"NEW"}'),
        (b'{"model":"a","x":{"model":"no"}}', b'{"model":"NEW","x":{"model":"no"}}'),
        (b'{"model":"a","model":"b"}', b'{"model":"a","model":"NEW"}'),
        (b'{"model":5,"model":"b"}', b'{"model":5,"model":"NEW"}'),
        (b'{"mod\\u0065l":"a"}', b'{"mod\\u0065l":"NEW"}'),
        (b'{"model":"a","mod\\u0065l":"b"}', b'{"model":"a","mod\\u0065l":"NEW"}'),
        (b'{"model":"a","x":"\\"model\\": \\"b\\""}', b'{"model":"NEW","x":"\\"model\\": \\"b\\""}'),
        (b'{"a\\"model":"no","model":"a"}', b'{"a\\"model":"no","model":"NEW"}'),
        (b'{"model":"a\\"b","x":1}', b'{"model":"NEW","x":1}'),
        (b'{"x":"model","model":"a","y":"model"}', b'{"x":"model","model":"NEW","y":"model"}'),
    ],
)
def test_rewritten_where_it_counts(body, after):
    assert with_model(body, "NEW") == after


def test_a_name_that_needs_escaping():
    assert with_model(b'{"model":"a"}', 'b"\\\n') == b'{"model":"b\\"\\\\\\n"}'


@pytest.mark.parametrize("body", [b'{"x":1}', b'{"model":5}', b'{"x":["model"]}'])
def test_nothing_to_rewrite(body):
    with pytest.raises(BadRequest):
        with_model(body, "NEW")


def peak_of(work):
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


SIZE = 400_000
SHAPES = {
    "one string": b'{"x":"%b","y":{"model":"n"},"model":"m"}' % (b"a" * SIZE),
    "escapes": b'{"x":"%b","y":["\\u0041"],"model":"m"}' % (b"\\n" * (SIZE // 2)),
    "quotes": b'{"x":"%b","y":{"model":"n"},"model":"m"}' % (b'\\"' * (SIZE // 2)),
    "numbers": b'{"x":[%b1],"model":"m"}' % (b"1," * (SIZE // 2)),
    "lists": b'{"x":[%b1],"model":"m"}' % (b"[[]]," * (SIZE // 5)),
    "members": b'{"x":[],%b"model":"m"}' % (b'"a":1,' * (SIZE // 6)),
    "spelt members": b'{%b"model":"m"}' % (b'"\\u0061":1,' * (SIZE // 11)),
    "deep": b'{"x":%b%b,"model":"m"}' % (b"[" * 900, b"]" * 900),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_rewriting_needs_little_more_than_the_body(shape):
    body = SHAPES[shape]
    assert decode(with_model(body, "NEW")).model == "NEW"
    assert peak_of(lambda: with_model(body, "NEW")) < 4 * len(body) + 100_000
    assert find_field(body, "model") == "m"
    assert peak_of(lambda: find_field(body, "model")) < 100_000


def test_very_many_models():
    body = b'{"x":[%b1],"model":"m"}' % (b'{"model":"n"},' * 5000)
    assert with_model(body, "NEW") == body.replace(b'"m"', b'"NEW"')
    with pytest.raises(BadRequest):
        with_model(b'{"x":[%b1],"model":"m"}' % (b'{"model":""},' * 100_000), "NEW")


@pytest.mark.parametrize(
    ("value", "found"),
    [("u1", "u1"), (7, "7"), (1.5, "1.5"), (True, None), (None, None), ([1], None), ({"a": 1}, None), ("", "")],
)
def test_fields(value, found):
    body = json.dumps({"x": {"user": "no"}, "user": value}).encode()
    assert find_field(body, "user") == found
    assert find_field(body, "nobody") is None


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff"])
def test_fields_of_no_object(body):
    assert find_field(body, "user") is None


def test_usage_asked_for():
    assert with_usage(b'{"a":1} \n', None) == b'{"a":1,"stream_options":{"include_usage":true}}'
    assert with_usage(b'{"a":1}', {"x": 1, "include_usage": False}) == (
        b'{"a":1,"stream_options":{"x":1,"include_usage":true}}'
    )


# -- forms --------------------------------------------------------------------------------------------------------

KIND = b"multipart/form-data; boundary=B"


def part(head, content=b"x"):
    return b"--B\r\n" + head + b"\r\n\r\n" + content + b"\r\n"


FILE = part(b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav')
MODEL = part(b'Content-Disposition: form-data; name="model"', b"whisper")


@pytest.mark.parametrize("body", [MODEL + FILE, FILE + MODEL, b"preamble\r\n" + FILE + MODEL, FILE + MODEL + FILE])
def test_the_model_of_a_form(body):
    body += b"--B--\r\n"
    found, (start, end) = multipart_model(body, KIND)
    assert found == "whisper"
    assert body[start:end] == b"whisper"


@pytest.mark.parametrize(
    "head",
    [
        b"content-disposition:form-data;name=model",
        b"X: 1\r\nContent-DISPOSITION: form-data; NAME=model",
        b'Content-Disposition: form-data; filename="x"; name="model"',
        b'Content-Disposition: form-data; name="model" ; a=b',
    ],
)
def test_spellings_of_the_model(head):
    assert multipart_model(FILE + part(head, b"w") + b"--B--", KIND)[0] == "w"


@pytest.mark.parametrize(
    "head",
    [
        b'Content-Disposition: form-data; name="models"',
        b'Content-Disposition: form-data; name="a"; filename="name=model"',
        b'Content-Disposition: form-data; filename="; name=model;"; name="a"',
        b'X-Content-Disposition: form-data; name="model"',
        b'Content-Disposition: attachment; name="model"',
        b'Content-Disposition: form-data; xname="model"',
    ],
)
def test_not_the_model(head):
    assert multipart_model(part(head) + b"--B--", KIND) == (None, (0, 0))


@pytest.mark.parametrize("body", [b"", b"--B", b"--B--", MODEL, MODEL[:-9] + b"--C--", b"--B\r\n" * 9])
def test_forms_that_are_not_whole(body):
    assert multipart_model(body, KIND) == (None, (0, 0))


def test_a_form_without_a_boundary():
    with pytest.raises(BadRequest):
        multipart_model(MODEL, b"multipart/form-data")


def test_two_models():
    """Engines may take the last one; whoever only looks at the first would let it past."""
    with pytest.raises(BadRequest):
        multipart_model(MODEL + part(b'Content-Disposition: form-data; name="model"', b"other") + b"--B--", KIND)


def test_too_many_parts():
    with pytest.raises(BadRequest):
        multipart_model(b"--B" + b"\r\n--B" * 3000 + b"\r\n\r\n--B--", KIND)


def test_a_head_without_end():
    """The model is looked for in heads only, which are short."""
    body = b"--B\r\n" + b"X: 1\r\n" * 5000 + b'Content-Disposition: form-data; name="model"\r\n\r\nw\r\n--B--'
    assert multipart_model(body, KIND) == (None, (0, 0))
