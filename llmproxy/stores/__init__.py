"""State that several proxies share, behind ports of `core`: today the limits.

`MemoryStore` keeps them in this process and answers at once. `RedisStore` keeps them in Redis, where one script takes
all that a request asks for or nothing:

* Requests that arrive in the same turn of the event loop go in one round trip, over one connection that is a plain
  protocol (hiredis reads and writes it): 5 us of CPU a round trip, where a client library's takes 45.
* What a busy tenant will need next is taken before it is asked for (`redis_ahead`), so that most of its requests need
  no round trip at all. Everything that passes was granted by the script all the same.
* Redis's clock counts. The script keeps no state but the keys, in whole numbers (`core.buckets`), and a full bucket's
  key is no key at all, so the keys expire by themselves.
* An answer that is not there after `timeout_s` is not waited for. The link is given up, this process decides for
  itself (`on_failure`), and a task in the background connects again, four times a second. What is asked for carries
  the last moment at which the answer is of use, so that a Redis that wakes up takes nothing for requests long gone.
* Deciding for itself means a `MemoryStore` with the n-th part of each limit, n being the proxies last seen alive,
  begun from what Redis last said was left. What it lets pass is owed, and charged when Redis is back.
* Corrections (settling, giving back, releases) wait for nobody: they ride along in front of the next question or go
  out within milliseconds, numbered, so that one sent twice counts once.
* Concurrency is leases with an expiry, renewed while they are held: those of a killed proxy come back by themselves.

Keys begin with `{namespace}`, a hash tag: all in one slot, so a script may touch them in a Redis Cluster too.
"""
