"""Which backend has which prefix, against a model that keeps sets."""

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.core.backend import Backend, BackendSpec
from llmproxy.policy.routing.prefix_index import PrefixIndex

BACKENDS = [Backend(BackendSpec(id=f"b{number}", url="http://127.0.0.1:1")) for number in range(3)]
PROMPT = st.lists(st.integers(0, 9), max_size=6, unique=True)


def test_the_last_block_goes_first():
    index = PrefixIndex()
    index.insert(BACKENDS[0], [1, 2, 3], 3)
    index.insert(BACKENDS[0], [9], 3)
    assert index.match([1, 2, 3]) == {0: 2}
    assert index.match([9]) == {0: 1}
    assert index.size(BACKENDS[0]) == 3


def test_what_is_used_again_stays():
    index = PrefixIndex()
    index.insert(BACKENDS[0], [1, 2], 3)
    index.insert(BACKENDS[0], [5], 3)
    index.insert(BACKENDS[0], [1, 2], 3)
    index.insert(BACKENDS[0], [6], 3)
    assert index.match([1, 2]) == {0: 2}
    assert index.match([5]) == {}


def test_each_backend_by_its_own_depth():
    index = PrefixIndex()
    index.insert(BACKENDS[0], [1, 2, 3, 4], 10)
    index.insert(BACKENDS[1], [1, 2], 10)
    index.insert(BACKENDS[2], [7], 10)
    assert index.match([1, 2, 3, 5]) == {0: 3, 1: 2}
    assert index.match([]) == {}


def test_a_leavers_place_is_given_anew():
    index = PrefixIndex()
    for backend in BACKENDS:
        index.insert(backend, [1, 2], 10)
    index.forget(BACKENDS[1])
    index.forget(BACKENDS[1])
    assert index.match([1]) == {0: 1, 2: 1}
    assert index.bit(Backend(BackendSpec(id="new", url="http://127.0.0.1:1"))) == 1
    assert index.match([1]) == {0: 1, 2: 1}


@given(st.lists(st.tuples(st.integers(0, 2), PROMPT, st.booleans()), max_size=30), PROMPT)
def test_without_eviction_it_is_a_set_for_each_backend(steps, asked):
    index = PrefixIndex()
    model = {backend: set() for backend in BACKENDS}
    for which, prompt, removes in steps:
        backend = BACKENDS[which]
        if removes:
            index.remove(backend, prompt)
            model[backend] -= set(prompt)
        else:
            index.insert(backend, prompt, 1000)
            model[backend] |= set(prompt)
    expected = {}
    for backend in BACKENDS:
        depth = 0
        while depth < len(asked) and asked[depth] in model[backend]:
            depth += 1
        if depth:
            expected[index.bit(backend)] = depth
    assert index.match(asked) == expected
    for backend in BACKENDS:
        assert index.size(backend) == len(model[backend])
