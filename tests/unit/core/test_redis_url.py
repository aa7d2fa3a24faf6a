"""Where a Redis is, in a URL; what is wrong with one is said without showing it."""

import pytest

from llmproxy.core.redis_url import RedisUrl, Topology, parse_redis_url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://cache", RedisUrl(Topology.SINGLE, (("cache", 6379),))),
        ("redis://cache:7000/2", RedisUrl(Topology.SINGLE, (("cache", 7000),), database=2)),
        ("redis://:p%40ss@[::1]:7000", RedisUrl(Topology.SINGLE, (("::1", 7000),), password="p@ss")),
        ("rediss://u:p@cache?ca=/ca.pem", RedisUrl(Topology.SINGLE, (("cache", 6379),), "u", "p", 0, True, "/ca.pem")),
        (
            "sentinel://a,b:7/main/1?sentinel_password=s",
            RedisUrl(Topology.SENTINEL, (("a", 26379), ("b", 7)), database=1, master="main", sentinel_password="s"),
        ),
        ("cluster://a:1,b:2?tls=true", RedisUrl(Topology.CLUSTER, (("a", 1), ("b", 2)), tls=True)),
        (
            "rediss://cache?cert=/c.pem&key=/k.pem&tls=yes",
            RedisUrl(Topology.SINGLE, (("cache", 6379),), tls=True, cert_file="/c.pem", key_file="/k.pem"),
        ),
        (
            "sentinel://a/m?sentinel_username=u&tls=false",
            RedisUrl(Topology.SENTINEL, (("a", 26379),), master="m", sentinel_username="u"),
        ),
    ],
)
def test_what_is_understood(url, expected):
    assert parse_redis_url(url) == expected


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("cache:6379", "must begin with"),
        ("http://:secret@cache", "must begin with"),
        ("redis://:secret@", "no host"),
        ("redis://:secret@cache:0", "no usable port"),
        ("redis://:secret@cache:x", "no usable port"),
        ("redis://:secret@a,b", "several hosts"),
        ("redis://:secret@a/b", "number of a database"),
        ("redis://:secret@a/1/2", "number of a database"),
        ("redis://:secret@a?db=1", "unknown option"),
        ("redis://:sec?secret@a", "unknown option"),
        ("redis://:secret/secret@a", "no host .in a password, write / as %2F"),
        ("redis://u:secret/secret@a", "no usable port .in a password, write / as %2F"),
        ("redis://:secret\u2100@a", "is no URL"),
        ("redis://:secret#secret@a", "# as %23"),
        ("rediss://:secret@a?ca=ca.pem", "ca must be the whole path"),
        ("redis://:secret@a?ca=/ca.pem", "not tls=true"),
        ("rediss://:secret@a?tls=false", "always true with rediss"),
        ("cluster://:secret@a?tls=ja", "tls is true or false"),
        ("rediss://:secret@a?key=/k.pem", "a key without a cert"),
        ("sentinel://:secret@a", "master's name"),
        ("cluster://:secret@a/1", "only database 0"),
    ],
)
def test_what_is_not(url, complaint):
    with pytest.raises(ValueError, match=complaint) as caught:
        parse_redis_url(url)
    assert "secret" not in str(caught.value)


def test_passwords_are_not_shown():
    assert "secret" not in repr(parse_redis_url("sentinel://u:secret@a/m?sentinel_password=secret"))
