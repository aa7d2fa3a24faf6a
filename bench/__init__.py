"""Speed beside peers, in one run, on one machine.

Theory of operation. An upstream stub (`stub/`, two processes), a load generator (`load/`) and the proxies under test
share one machine. Each proxy is pinned to one core; the stub and the load generator live on the others (on a machine
with two cores: on the other one) and are written in C, so that neither of them is what is measured. Every figure is
taken of all peers in turns, round after round (`session.interleave`), so that a slow minute of the machine hits all of
them alike; what is compared are the ratios within a round, and their median.

CPU is what the kernel charged to the proxy's whole process tree (`procfs`). Work is counted by the load generator:
answered requests, and server-sent events received. So "CPU per unit of work" includes the access log, the metrics
(scraped once a second where a peer has them), health probes and the kernel's share of every read and write.

`peers/` has one file a proxy, `measure/` one file a figure, `micro/` the pieces of llmproxy's own hot path. `labs/` is
a run of its own, without peers: what llmproxy does when things go wrong, against bounds.
"""
