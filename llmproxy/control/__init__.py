"""The loops that keep the fleet true. Nothing here is on the path of a request.

* `Registrar` turns the configuration into membership and is the only caller of `Pool.set_members`. A backend whose
  description is unchanged, or changed only in weight, `max_concurrency` or `gpu`, keeps its `Backend` object, and with
  it its in-flight count, its health and an operator's drain. Everyone else is a newcomer or a leaver.
* `Prober` asks every member how it is and tells the pool's `HealthRegistry`, which alone decides what that means.
* `Catalog` asks every backend that comes up for its models. `StatusLog` writes each change of a status into the log.
  `Leavers` waits until a backend that left has drained, and has what was counted of it forgotten.
* `Scraper` (`signals/`) reads what engines and GPUs say of themselves, and is the one writer of `Backend.gauges`.
* `ProgressWatch` finds the engines that hang although their health is fine, from those gauges and our own streams.
* `Resolver` turns host names into addresses, for the data plane and the prober alike, and keeps them fresh.
* `Reloader` reads the configuration again (a changed file of those it is made from, SIGHUP, the admin API) and has it
  applied, or keeps the old one and says why.

Fail static: when DNS dies the last addresses stay; when the file is bad the last configuration stays; when a sleep
check fails its last answer stays; what a backend said of itself is unknown once it is too old. No loop here dies of an
error: it logs, and goes on.

Loops are asyncio; what they decide is in plain functions and objects (`delay_s`, `specs`, `merge`, `FileWatch`,
`SleepGauge`) that tests call directly. Clocks, random generators and sleeps are arguments.
"""
