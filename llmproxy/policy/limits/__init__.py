"""Who may use how much: which limits a request meets, what it is charged, and what it is told.

A request meets the limits of its tenant (the tier's quota, or the override set for that tenant), of the model within
that tier, and of its key; somebody without a key is a tenant by address. Each number is one `Limit`, counted under one
key in a `LimitStore`, and `core.buckets` is the arithmetic. A store takes all that a request asks for, or nothing.

The order of things:

1. `Limiter.check_request`, before anything that costs: one request from each bucket of requests, one place from each
   limit of concurrency. A request that is refused later stays charged as a request; its place comes back.
2. `Limiter.reserve_tokens`, after a cache had its chance: estimated prompt tokens and a learned quantile of what this
   tenant's answers from this model take, capped by the request's own maximum, from each bucket of tokens and each
   budget. `Limiter.admit` is both in one question, where nothing lies between.
3. `Charge.settle`, when the stream has ended: the true usage, less or more than was reserved.
4. `Charge.close`, on every path: the place is free, and what was not used goes back (all of it, if nothing was
   settled). What was used beyond is a debt that refilling pays first.

Invariants: what is charged for tokens of requests that are over is what they used; settling and closing twice does
nothing; within any time t no bucket passes more than burst + rate * t, and what a request used beyond its
reservation is paid before the next one passes. State here is bounded by numbers of tenants and models; the buckets have
one writer, the store.
"""
