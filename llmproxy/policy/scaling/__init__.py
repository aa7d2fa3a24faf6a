"""How many replicas a pool should have.

    signals -> policies -> combine -> stabiliser -> guardrails -> Decision

`decision.Decider` is that line: the pure middle of the loop, with a file for each part. The loop around it
(`control/scaling`) measures the signals and lets an actuator act; the simulator (`sim/scaling`) runs the same objects
in virtual time.

- A policy (`base.ScalingPolicy`) gives an opinion, `Wanted`, with its reason, or None. The highest wins, under the
  lowest cap that any sets (`combine`). What nobody measured is None and makes no opinion: unknown is never zero.
- `stabiliser` says how fast to follow: windows against noise, steps against haste.
- `guardrails` are what no policy can talk the loop into: min and max, changes an hour, money, the kill switch. A budget
  goes below `min`; a pause changes nothing in either direction.
- `tiers`, where replicas are not all alike, says of which kind they are: never more, nor dearer, than the guardrails
  allow.

Invariants, tested with random signals: never more than `max`, nor than the budgets pay for; nothing while paused.

`demand` is the default law and `forecast` its look ahead; `meter` and `capacity` are the measurements both rest on,
`error_budget` closes the loop on the objective, `silence` keeps a fleet when traffic stops instead of fading. `rules`,
`hold`, `steps`, `target` and `schedule` are what operators write. docs/scaling.md derives the law and says what to
choose.

State has one writer each: a policy its own memory, the stabiliser and the guardrails what was done (they are told by
`Decider.done`), the purse what was spent.

Damped trends: Gardner & McKenzie, "Forecasting trends in time series" (1985). Pinball loss: Koenker & Bassett,
"Regression quantiles" (1978).

Adding a policy: a file with a class (`options_type`, and a constructor taking the parsed options), and a line in
`registry.py`. Third parties name such a class in the entry point group `llmproxy.scaling`.
"""
