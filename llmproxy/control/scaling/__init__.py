"""The autoscaler: one loop a pool, in which everything that decides is pure and everything that acts is somebody else.

    Meter -> Plan (policy/scaling) -> PoolScaler -> Actuator (control/actuators)

* `Meter` makes `Signals` of the proxy's own counters, the engines' gauges, the host and outside queries.
* A `Plan` turns them into a `Decision`: policies, stabiliser, guardrails. The simulator runs the same objects.
* `PoolScaler` has the fleet brought to what was decided (`Acting`); `Moves` says who is taken back, drained, stopped
  and started for it, tier by tier where there are tiers of capacity; those where sessions live go last, and a tier
  whose starts fail waits alone (`Backoff`). It owns the replicas' lives (`Lives`, over a `Fleet`): starting (in no
  one's way until /health and a first real token are there), warming, serving with slow start, draining, stopped; and
  the warm pool beside them. It is the one writer of its source of the registrar's members, and of nothing else in the
  pool.
* An `Actuator` starts and ends instances.
* `ColdStarts` counts how long changes take, and which requests waited or failed meanwhile.

Many proxies may watch one fleet. Each registers and checks the instances for itself; only the one that holds the lock
(`leader.py`) drains, starts and ends any, and everything it does carries its fencing token. It publishes in which stage
each replica is (`orders.py`), which the others follow; they report what they get and what they still have at a replica
(`reports.py`), which it decides on and waits for. What operators say to one holds for all (`tables.py`).

Fail static: while the actuator, Redis or a query cannot be reached, what runs goes on running. A pool that is paused,
or whose proxy does not lead, decides and records as always, and does nothing.
"""
