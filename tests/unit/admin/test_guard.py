import pytest

from llmproxy.admin.guard import is_loopback, refusal

LOCAL = {"Host": "127.0.0.1:8081"}


def code(method="GET", path="/admin/pools", token="", on_loopback=True, **headers):
    headers = LOCAL | {name.replace("_", "-"): value for name, value in headers.items()}
    refused = refusal(method, path, headers, token, on_loopback=on_loopback)
    return refused and refused.code


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_health_is_open_to_everyone(path, method):
    assert code(method, path, token="t", on_loopback=False, Host="anything") is None


@pytest.mark.parametrize("path", ["/", "/metrics", "/admin/pools", "/livez/x", "/admin/reload"])
def test_everything_else_needs_the_token_when_there_is_one(path):
    for on_loopback in (True, False):
        assert code(path=path, token="s3cret", on_loopback=on_loopback) == "invalid_token"
        assert code(path=path, token="s3cret", on_loopback=on_loopback, Authorization="Bearer s3cret") is None


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "s3cret",
        "Basic s3cret",
        "Bearer s3cre",
        "Bearer s3crets",
        "Bearer S3CRET",
        "Bearer s3cret s3cret",
        "Bearer \udcff",
        "Bearer é",
    ],
)
def test_wrong_tokens(authorization):
    assert code(token="s3cret", Authorization=authorization) == "invalid_token"


@pytest.mark.parametrize("authorization", ["Bearer s3cret", "bearer s3cret", "BEARER  s3cret "])
def test_right_tokens(authorization):
    assert code(token="s3cret", Authorization=authorization) is None


def test_a_token_beyond_ascii_works():
    assert code(token="schlüssel", Authorization="Bearer schlüssel") is None


def test_with_a_token_any_host_name_will_do():
    assert code(token="t", Authorization="Bearer t", Host="admin.example.com") is None


def test_no_token_and_a_wide_port_means_no():
    for path in ("/admin/pools", "/metrics", "/nowhere"):
        assert code(path=path, on_loopback=False) == "token_required"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8081", "127.9.9.9", "localhost:8081", "LOCALHOST", "app.localhost", "[::1]:8081"]
)
def test_loopback_names_may_ask_without_a_token(host):
    assert code(Host=host) is None


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "evil.example:8081", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1", "[", "@"],
)
def test_other_names_may_not_whatever_they_point_at(host):
    assert code(Host=host) == "host_not_allowed"
    assert code(path="/metrics", Host=host) == "host_not_allowed"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:3000"},
        {"Origin": ""},
        {"Origin": "http://["},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site", "Origin": "http://127.0.0.1:8081"},
    ],
)
def test_other_sites_cannot_make_a_browser_change_things(method, headers):
    assert code(method, "/admin/reload", **headers) == "cross_origin"
    assert code(method, "/admin/reload", token="t", Authorization="Bearer t", **headers) == "cross_origin"


@pytest.mark.parametrize(
    "headers",
    [{}, {"Origin": "http://127.0.0.1:8081"}, {"Sec_Fetch_Site": "same-origin"}, {"Sec_Fetch_Site": "none"}],
)
def test_curl_and_pages_of_the_admin_port_itself_can(headers):
    assert code("POST", "/admin/reload", **headers) is None


def test_posts_to_the_health_paths_are_not_open():
    assert code("POST", "/livez", token="t") == "invalid_token"


def test_loopback():
    assert [is_loopback(name) for name in ("127.0.0.1", "::1", "localhost", "localhost.")] == [True] * 4
    assert [is_loopback(name) for name in ("0.0.0.0", "::", "", "notlocalhost", "192.168.0.1")] == [False] * 5
