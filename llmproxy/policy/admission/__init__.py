"""Who waits, who goes next, who is shed, when a pool has more work than it can begin.

Requests wait here, not in the engines, so that the choice of a backend is made at the last moment with the newest
knowledge, and the length of the queue says how much is missing. Four questions, each answered by its own module:

- **saturation**: may this backend be given one more now?
- **ordering** (`bands`, then `fairness`, then `tenant`): strict priorities with a least share for the worse ones;
  inside a priority the tenant that has had the least service, in weighted tokens; inside a tenant the nearest deadline,
  then who came first.
- **shedding** (`deadline`, `Bounds` of the `queue`): what is not worth starting, and what is too much to hold. Of a
  full line it is a flood's last who has to go, not whoever comes next.
- **lanes**, **tenant_share**: kinds of requests, and tenants beside others, that may take no more than a share of the
  backends.

What a request will take, and until when it is worth waiting, is a matter of `prices`.

`Admission` puts them together for one pool; a driver holds what requests wait with. Everything is synchronous and told
the time, so that production (`llmproxy.pipeline.room`) and the simulator (`llmproxy.sim.fleet`) run the same objects.

Invariants. A ticket is in the queue at most once, and leaving is idempotent, so a request can leave on every path out.
While anybody waits, no newcomer passes. A tenant's counter follows what it used, as soon as that is known. Nothing is
kept of who has left, but for the counters of tenants, which are bounded. The loop's thread writes all this.

Fairness: Sheng et al., "Fairness in Serving Large Language Models" (OSDI 2024). Limits on concurrency: Jacobson's
additive increase and multiplicative decrease. Learned quantiles: Robbins and Monro's stochastic approximation.
"""
