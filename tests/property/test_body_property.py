"""Rewriting by splicing: the document means the same but for the one value, and every other byte is as it was."""

import json

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.pipeline.body import decode, find_field, multipart_model, with_model, with_usage

BLANKS = st.sampled_from(["", "", "", " ", "\n", "\t", "\r\n  "])
WORDS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.sampled_from(["model", 'model":"x', '"model":"x"', '\\"model": "x"', "\\", 'a"model', "{[", "]}", ",", "modèl"]),
)
MODEL_KEYS = st.sampled_from(
    ['"model"', '"\\u006dodel"', '"mod\\u0065\\u006C"', '"\\u006D\\u006F\\u0064\\u0065\\u006c"']
)


@st.composite
def strings(draw, text):
    """A JSON string, spelt one way or another."""
    spelt = json.dumps(text, ensure_ascii=draw(st.booleans()))
    return spelt.replace("/", "\\/") if draw(st.booleans()) else spelt


@st.composite
def values(draw, depth=0):
    kind = draw(st.sampled_from(["string", "number", "constant"] + ["object", "array"] * (depth < 3)))
    if kind == "string":
        return draw(strings(draw(WORDS)))
    if kind == "number":
        return draw(st.sampled_from(["0", "-1", "3.5e2", "12345678901234567890"]))
    if kind == "constant":
        return draw(st.sampled_from(["true", "false", "null"]))
    items = draw(st.lists(values(depth + 1), max_size=3))
    if kind == "array":
        return "[" + ",".join(f"{draw(BLANKS)}{item}{draw(BLANKS)}" for item in items) + "]"
    keys = [draw(st.one_of(MODEL_KEYS, WORDS.flatmap(strings))) for _ in items]
    return "{" + ",".join(f"{draw(BLANKS)}{key}{draw(BLANKS)}:{item}" for key, item in zip(keys, items)) + "}"  # noqa: B905


@st.composite
def documents(draw):
    """A request's body, and where in it the effective model stands."""
    text, span = draw(BLANKS) + "{", (0, 0)
    members = draw(st.lists(st.sampled_from(["model", "other", "other", "other"]), max_size=6))
    members.insert(draw(st.integers(0, len(members))), "model")
    for number, member in enumerate(members):
        if member == "model":
            key, value = draw(MODEL_KEYS), draw(WORDS.flatmap(strings))
        else:
            key, value = draw(WORDS.filter(lambda word: word != "model").flatmap(strings)), draw(values())
        text += ("," if number else "") + draw(BLANKS) + key + draw(BLANKS) + ":" + draw(BLANKS)
        if member == "model":
            span = len(text.encode()), len((text + value).encode())
        text += value + draw(BLANKS)
    return (text + "}" + draw(BLANKS)).encode(), span


@given(documents(), WORDS)
def test_only_the_effective_model_changes(document, name):
    body, (start, end) = document
    after = with_model(body, name)
    assert json.loads(after) == {**json.loads(body), "model": name}
    assert after[:start] == body[:start]
    assert after[len(after) - len(body) + end :] == body[end:]
    assert json.loads(after[start : len(after) - len(body) + end]) == name
    assert decode(body).model == json.loads(body)["model"]


@given(documents(), WORDS, WORDS)
def test_a_rewrite_can_be_rewritten(document, first, second):
    body, _ = document
    assert with_model(with_model(body, first), second) == with_model(body, second)


@given(documents(), st.one_of(st.none(), st.dictionaries(st.text("abc", max_size=3), st.integers() | st.none())))
def test_usage_is_asked_for_and_nothing_else_changes(document, options):
    body, _ = document
    if options is not None:
        body = body.rstrip()[:-1] + b',"stream_options":' + json.dumps(options).encode() + b"}"
    before = json.loads(body)
    after = json.loads(with_usage(body, before.get("stream_options")))
    assert after.pop("stream_options") == {**(options or {}), "include_usage": True}
    before.pop("stream_options", None)
    assert after == before


@given(documents(), WORDS)
def test_fields_are_found(document, name):
    body, _ = document
    value = json.loads(body).get(name)
    found = find_field(body, name)
    if isinstance(value, str) and json.dumps(name, ensure_ascii=False)[1:-1] == name:
        assert found == value
    else:
        assert found is None or found == value or not isinstance(value, str)


BOUNDARIES = st.text("abcXYZ019'_-", min_size=1, max_size=30)
CONTENTS = st.binary(max_size=60).map(lambda data: data.replace(b"--", b"__")) | st.sampled_from(
    [
        b"",
        b"\r\n",
        b'\r\nContent-Disposition: form-data; name="model"',
        b'form-data; name="model"\r\n\r\nno',
        b"\r\n\r\n",
    ]
)


@given(st.lists(st.tuples(st.sampled_from(["file", "language", "models", "xmodel"]), CONTENTS), max_size=5), BOUNDARIES,
       st.text("abc-/.é", min_size=1, max_size=20), st.integers(0, 5), st.booleans(), st.booleans())  # fmt: skip
def test_the_model_of_a_form(parts, boundary, model, place, quoted, crlf_first):
    delimiter = b"--" + boundary.encode()

    def part(name, content, extra=b""):
        return b'%b\r\nContent-Disposition: form-data; name="%b"%b\r\nX: y\r\n\r\n%b\r\n' % (
            delimiter, name.encode(), extra, content,
        )  # fmt: skip

    pieces = [part(name, content, b'; filename="name=model"') for name, content in parts]
    place = min(place, len(pieces))
    pieces.insert(place, part("model", model.encode()))
    body = (b"\r\n" if crlf_first else b"") + b"".join(pieces) + delimiter + b"--\r\n"
    kind = b'Multipart/Form-Data; boundary="%b"' if quoted else b"multipart/form-data;boundary=%b"
    found, (start, end) = multipart_model(body, kind % boundary.encode())
    assert found == model
    assert body[start:end] == model.encode()
    assert body[:start].endswith(b"".join(pieces[:place]) + part("model", b"")[:-2])
