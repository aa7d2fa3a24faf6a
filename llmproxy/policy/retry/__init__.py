"""Whether a failed attempt is followed by another one elsewhere.

`rules.decide` looks at one request: what it is, what happened to it so far, what has been sent downstream. `Budget`
looks at all of a pool's: retries are a share of the live requests, so a fleet that fails is not hit by a multiple of
its load at the worst time (Finagle's and Linkerd's retry budgets are the same idea, counted per second).

Invariants: nothing is retried once a byte of an answer has gone downstream; one request is sent at most `attempts`
times, and once more if a kept connection turned out to be closed already; a request under which more than
`after_crash` engines died is not given to another; retries running at once never exceed what the budget allows at
the time they start, apart from one free retry for each request whose connection was proven lost.

The caller turns `Verdict.BUDGET` into `Budget.try_spend`, and gives back when that attempt ends.
"""
