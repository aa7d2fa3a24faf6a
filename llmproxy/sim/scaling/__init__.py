"""Autoscaling in virtual time: real request rates against the production scaling objects, and against others' rules.

Traffic (`traffic`) is a number of arrivals in each second. It is made once and every controller meets the same. A file
of rates by window gives mean and, where it has a column for it, the coefficient of variation c of the gaps between
arrivals; arrivals in a second then have variance c^2 times their mean, as those of a renewal process have. Of a
request trace both are measured, minute by minute. Rates are scaled so that mean demand is ten replicas' worth.

The model (`fleet`), in ticks of one second: a replica begins 4 requests a second and each takes 8 s, so 32 run at
once; who finds no room waits, first come, first served; one asked for serves after the cold start, one let go takes
nothing more and is gone when what it has is done. Both count as replica-hours, from asking to gone. A request that
waits at most 2 s is within the objective.

`ours` is `policy.scaling.decision.Decider` with `demand` and `forecast`; `rivals` has the rules of others, which see
the same fleet; `clairvoyant` knows what comes. Nothing here knows a clock; the same seed gives the same figures.
"""
