"""Who asks: a request's head to an `Identity` (tenant, tier, what the key may be used for), or a refusal.

Everything here is decided at once, on the head, before any of the body is read: no module waits for anything. What
has to be fetched (keys in Redis, an issuer's public keys) is fetched beforehand by a loop in `control/`, which hands
it over whole; when its source is silent, what is known stays good for a bounded time, and what is unknown is answered
503, not 401: nobody can tell whether it is wrong.

* `credential`: the key as it was sent, and its SHA-256, which is all that anyone compares.
* `authenticator`: the interface. `StaticKeys` (the configuration's), `LiveKeys` (Redis), `Tokens` (JWT) are behind it.
* `gate`: asks them in turn. One of these stands in the pipeline, or none.
* `desk`, `mint`: making keys and taking them back, for `llmproxy keys`; no request comes near it.

Why looking a digest up in a dict leaks nothing. A comparison that ends at the first difference tells, by the time it
takes, how much of a guess was right; whoever can choose guesses byte by byte finds the secret. Here the guess is hashed
first. To steer the bytes that are compared, an attacker would have to choose SHA-256 outputs, and what the timing tells
is a part of a stored *digest*, from which no key follows (keys that are made here have 256 random bits). The key itself
is never compared with anything, and nothing keeps it.
"""
