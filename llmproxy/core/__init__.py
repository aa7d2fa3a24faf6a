"""Values and the one live model: what every other layer talks about.

Standard library only. Nothing here reads a clock, opens a socket or knows a concrete policy:
`now` (seconds, monotonic) and `rng` always arrive as arguments, so production, unit tests and
the simulator run the same objects.

One writer each: `Backend.load` is written by `Lease`, `Backend.gauges` by the scraper,
`Backend.status` by the health registry, `Pool.backends` by the registrar.
"""
