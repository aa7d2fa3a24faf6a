"""Who waits, and who goes next, when every backend of a pool is at its `max_concurrency`.

`FifoQueue` is first come, first served, bounded in length and in time. It holds whatever the caller waits with and
wakes nobody: the driver takes the first out when a place is free, fails those that `expired` returns, and lets no
newcomer past while anybody waits. Leaving is idempotent and free of searching, so a waiter can leave on every path
out, whether it was served, ran out of time or its client went away.
"""
