"""The KV cache as counted blocks."""

from llmproxy.sim import BlockPool


def test_a_prompt_takes_whole_blocks_and_gives_them_back() -> None:
    pool = BlockPool(total=10, block_size=4)
    table = pool.open([], 9)
    assert table is not None
    assert pool.used == 3
    pool.close(table)
    assert pool.used == 0
    assert pool.cached == 0


def test_what_does_not_fit_takes_nothing() -> None:
    pool = BlockPool(total=3, block_size=4)
    assert pool.open([1, 2], 12) is not None
    assert pool.open([3], 4) is None
    assert pool.used == 3


def test_only_computed_full_blocks_are_found_again() -> None:
    pool = BlockPool(total=10, block_size=4)
    table = pool.open([1, 2], 10)
    assert table is not None
    pool.seal(table, [1, 2], 7)
    assert pool.matching([1, 2], 10) == 1
    pool.seal(table, [1, 2], 10)
    pool.close(table)
    assert pool.matching([1, 2], 10) == 2
    assert pool.matching([1, 3], 10) == 1
    assert pool.matching([9, 2], 10) == 0


def test_the_last_token_of_a_prompt_is_never_found() -> None:
    pool = BlockPool(total=10, block_size=4)
    table = pool.open([1, 2], 8)
    assert table is not None
    pool.seal(table, [1, 2], 8)
    assert pool.matching([1, 2], 8) == 1
    assert pool.matching([1, 2], 9) == 2


def test_a_shared_block_is_counted_once_and_kept_until_the_last_holder_leaves() -> None:
    pool = BlockPool(total=10, block_size=4)
    first = pool.open([1], 5)
    assert first is not None
    pool.seal(first, [1], 5)
    second = pool.open([1], 5)
    assert second is not None
    assert second.shared == [1]
    assert pool.used == 3
    pool.close(first)
    assert pool.used == 2
    pool.close(second)
    assert (pool.used, pool.cached) == (0, 1)


def test_two_that_compute_the_same_block_end_with_one() -> None:
    pool = BlockPool(total=10, block_size=4)
    first, second = pool.open([1], 5), pool.open([1], 5)
    assert first is not None
    assert second is not None
    assert pool.used == 4
    pool.seal(first, [1], 5)
    pool.seal(second, [1], 5)
    assert pool.used == 3


def test_the_least_recently_used_goes_first_and_tails_before_heads() -> None:
    pool = BlockPool(total=4, block_size=4)
    for hashes in ([1, 2], [3, 4]):
        table = pool.open(hashes, 8)
        assert table is not None
        pool.seal(table, hashes, 8)
        pool.close(table)
    assert pool.cached == 4
    needs_one = pool.open([], 4)
    assert needs_one is not None
    assert pool.matching([1, 2], 9) == 1  # the older one lost its tail
    assert pool.matching([3, 4], 9) == 2


def test_growing_stops_at_the_end_of_the_cache_and_evicts_before_it() -> None:
    pool = BlockPool(total=3, block_size=4)
    old = pool.open([1], 4)
    assert old is not None
    pool.seal(old, [1], 4)
    pool.close(old)
    table = pool.open([], 4)
    assert table is not None
    assert pool.grow(table, 12)
    assert pool.cached == 0
    assert not pool.grow(table, 13)
    assert pool.used == 3


def test_clearing_the_cache_leaves_what_is_held() -> None:
    pool = BlockPool(total=8, block_size=4)
    idle, held = pool.open([1], 5), pool.open([2], 5)
    assert idle is not None
    assert held is not None
    pool.seal(idle, [1], 5)
    pool.seal(held, [2], 5)
    pool.close(idle)
    pool.clear_cache()
    assert pool.matching([1], 5) == 0
    assert pool.matching([2], 5) == 1
