"""Who may be given work: one `Health` for each pool, fed probe results and outcomes, read by every request.

`Health` is the one writer of `Backend.status` and `Backend.weight`. What it knows of a backend comes in four parts,
each a small object of its own:

* probe state (`probe_state`), from active probes. A new backend gets no traffic until its first success; until then,
  refused connections and 503 mean that it loads and never count against it. Afterwards `unhealthy_after` bad probes in
  a row take it out, whatever kind they are, and `healthy_after` good ones bring it back. A proven backend that is out
  is UNHEALTHY, also while it refuses: dead and restarting look the same. When it says 503 itself it is LOADING again.
  Asleep takes one probe, awake again one.
* circuit breaker (`breaker`), from outcomes, inline. Closed -> open after N failures in the window, N failures in a
  row however far apart, or too large a share of failures. Open lasts `open_for_s`, doubled at each failed trial,
  capped, jittered downwards. Half-open lets one trial through; its outcome closes or re-opens, and an outcome that
  says nothing of the backend (the client left) gives the trial back. Good probes do not shorten it: an engine whose
  /health is fine may still fail every request.
* ejection cap (`ejection`): opening must leave enough of the pool; one backend may always be ejected. A backend that
  may not be opens at its next failure, once another has recovered.
* slow start (`slow_start`): after being out for failing, a backend's weight grows to full in ten steps.

A healthy one that hangs (`progress`, judged by a driver from its gauges and our streams) is UNHEALTHY until it moves.

DRAINING hides the probe state, which hides the breaker's. BUSY (429, 503 with Retry-After) is no failure: it only
takes the backend out of the choice for a moment, and only while others remain.

Panic: when nobody is eligible, candidates are those that merely seem bad, by probes or by the breaker, including one
whose trial is out; never new, loading, sleeping or draining ones. What happens to requests sent in panic moves no
breaker that is not closed: the trial does.

`candidates` is one comparison and a read. Everything is worked out again when an event changed something, or when
the next time-based step is due (a breaker's end, a slow-start step, the end of a busy moment).

Behind it: M. Nygard, "Release It!" (circuit breaker); Envoy's documentation of outlier detection, panic threshold and
slow start (the notions, not the numbers).
"""
