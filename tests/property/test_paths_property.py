"""No spelling of a closed route gets through, and the engine is sent the very path that was judged."""

from urllib.parse import unquote_to_bytes

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.core.errors import BadRequest, Forbidden, NotFound
from llmproxy.pipeline.routes import _CONTROL, RouteTable, canonical_path, wire_path

TABLE = RouteTable(extra={"/": "everything", "/engine": "some"})
CLOSED = RouteTable()


@st.composite
def spelt(draw, text):
    """A path segment with some of its bytes percent-encoded, once or twice."""
    out = b""
    for byte in text.encode():
        how = draw(st.sampled_from(["as it is"] * 6 + ["upper", "lower", "twice"]))
        if how == "as it is" and 0x21 <= byte <= 0x7E and byte not in b"?#":
            out += bytes([byte])
        elif how == "twice":
            out += b"%%25%02x" % byte
        else:
            out += (b"%%%02X" if how == "upper" else b"%%%02x") % byte
    return out


WORDS = [*sorted({word for path in _CONTROL for word in path.split("/") if word}), "v1", "inference", "engine", "chat"]
SEGMENTS = st.one_of(
    st.sampled_from(WORDS),
    st.sampled_from(["", "", ".", "..", "...", ";", "%", "é", " ", ".;", "v1.", "\\", "\0", "\n"]),
    st.text("ab%/.", max_size=3),
).flatmap(spelt)
SLASHES = st.sampled_from([b"/"] * 6 + [b"//", b"%2F", b"%2f/", b"/./", b"/%2e/"])


@st.composite
def paths(draw):
    closed = draw(st.sampled_from(["", *_CONTROL]))
    segments = [draw(spelt(word)) for word in closed.split("/")[1:]]
    for _ in range(draw(st.integers(0, 4))):
        segments.insert(draw(st.integers(0, len(segments))), draw(SEGMENTS))
    return b"/" + b"".join(segment + draw(SLASHES) for segment in segments[:-1]) + b"".join(segments[-1:])


def as_engines_may_read_it(path):
    """The most forgiving reading: decoded once, slashes and dots resolved, without a slash at the end."""
    segments = []
    for segment in unquote_to_bytes(path).decode("latin-1").split("/"):
        if segment == "..":
            segments = segments[:-1]
        elif segment not in ("", "."):
            segments.append(segment)
    return "/" + "/".join(segments)


@given(paths())
def test_what_passes_is_not_closed(path):
    for table in (TABLE, CLOSED):
        try:
            table.match(path)
        except (BadRequest, Forbidden, NotFound):
            continue
        assert as_engines_may_read_it(wire_path(path)) not in _CONTROL
        assert as_engines_may_read_it(path) not in _CONTROL


@given(paths())
def test_the_engine_is_sent_the_path_that_was_judged(path):
    try:
        judged = canonical_path(path)
    except BadRequest:
        return
    sent = wire_path(path)
    assert canonical_path(sent) == judged
    assert unquote_to_bytes(sent) == judged or sent == path
    assert wire_path(sent) == sent
    assert not set(sent) & set(b" \r\n\t\0?#")
    assert sent.startswith(b"/")


@given(paths())
def test_canonical_is_canonical(path):
    try:
        once = canonical_path(path)
    except BadRequest:
        return
    assert once.startswith(b"/")
    assert b"//" not in once
    assert not {b".", b".."} & set(once.split(b"/"))
    if b"%" not in once:
        assert canonical_path(once) == once


@given(st.binary(max_size=30).map(lambda data: b"/" + data))
def test_anything_else_is_refused_not_raised(path):
    for table in (TABLE, CLOSED):
        try:
            table.match(path)
            wire_path(path)
        except (BadRequest, Forbidden, NotFound):
            pass
