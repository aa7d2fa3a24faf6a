import socket
from dataclasses import replace

from llmproxy.config.model import PoolConfig
from llmproxy.control.members import is_same_server, merge, specs
from llmproxy.core.backend import Backend, BackendSpec, GpuSpec


def config(*backends):
    return PoolConfig.model_validate({"backends": list(backends)})


def zone(**names):
    def resolve(host, port):
        addresses = names.get(host)
        if addresses is None:
            return None
        return [(socket.AF_INET6 if ":" in address else socket.AF_INET, (address, port)) for address in addresses]

    return resolve


def test_a_plain_backend_is_itself_whatever_dns_says():
    [spec] = specs("llama", config({"url": "http://engine:8000/base", "id": "a"}), zone())
    assert (spec.id, spec.url, spec.host, spec.port) == ("a", "http://engine:8000/base", "engine", 8000)
    assert spec.server_name == ""


def test_each_address_of_a_resolved_name_is_a_backend():
    pool = config({"url": "https://engine:8443/base", "id": "a", "resolve": True, "weight": 2, "max_concurrency": 9})
    first, second = specs("llama", pool, zone(engine=["10.0.0.1", "fd00::2"]))
    assert [first.url, second.url] == ["https://10.0.0.1:8443/base", "https://[fd00::2]:8443/base"]
    assert [first.host, second.host] == ["10.0.0.1", "fd00::2"]
    assert first.server_name == second.server_name == "engine"
    assert (first.port, first.tls, first.base_path) == (8443, True, "/base")
    assert (first.weight, first.max_concurrency) == (2, 9)
    assert first.id.startswith("a-")
    assert first.id != second.id
    assert "10.0.0.1" not in first.id


def test_a_rotated_or_doubled_dns_answer_is_the_same_membership():
    pool = config({"url": "http://engine:8000", "resolve": True})
    one = specs("llama", pool, zone(engine=["10.0.0.1", "10.0.0.2"]))
    assert specs("llama", pool, zone(engine=["10.0.0.2", "10.0.0.1", "10.0.0.2"])) == one


def test_a_name_that_never_resolved_has_no_backend():
    pool = config({"url": "http://engine:8000", "resolve": True}, "http://10.0.0.7:8000")
    assert [spec.host for spec in specs("llama", pool, zone())] == ["10.0.0.7"]


def test_a_backend_listed_twice_counts_once(caplog):
    pool = PoolConfig.model_construct(backends=config("http://a:1").backends * 2)
    assert len(specs("llama", pool, zone())) == 1
    assert "listed twice" in caplog.text


def test_merge_keeps_the_same_server_and_gives_it_its_new_description():
    [old] = merge((), specs("llama", config({"url": "http://a:1", "id": "x"}), zone()))
    old.load.enter()
    heavier = specs("llama", config({"url": "http://a:1", "id": "x", "weight": 5, "max_concurrency": 3}), zone())
    [kept] = merge((old,), heavier)
    assert kept is old
    assert kept.load.in_flight == 1
    assert (kept.spec.weight, kept.spec.max_concurrency) == (5, 3)


def test_merge_takes_another_address_under_an_old_id_for_a_newcomer():
    [old] = merge((), specs("llama", config({"url": "http://a:1", "id": "x"}), zone()))
    [new] = merge((old,), specs("llama", config({"url": "http://b:1", "id": "x"}), zone()))
    assert new is not old
    assert old.spec.url == "http://a:1"


def test_merge_follows_the_order_asked_for():
    wanted = specs("llama", config("http://a:1", "http://b:1", "http://c:1"), zone())
    first = merge((), wanted)
    assert merge(first, wanted[::-1]) == first[::-1]


def test_only_weight_and_concurrency_leave_a_server_the_same():
    [spec] = specs("llama", config("http://a:1"), zone())
    plain = Backend(spec).spec
    for changes, same in [
        ({"weight": 3.0}, True),
        ({"max_concurrency": 1}, True),
        ({"ca_file": "x.pem"}, False),
        ({"server_name": "other"}, False),
        ({"url": "http://a:2"}, False),
    ]:
        changed = type(spec)(**{name: getattr(spec, name) for name in type(spec).__slots__} | changes)
        assert is_same_server(plain, changed) is same, changes


def test_another_gpu_makes_no_other_server():
    one = BackendSpec(id="b", url="http://a", gpu=GpuSpec(device=0))
    [backend] = merge((), [one])
    [kept] = merge([backend], [replace(one, gpu=GpuSpec(device=1))])
    assert kept is backend
    assert kept.spec.gpu == GpuSpec(device=1)
