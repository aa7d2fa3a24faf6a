"""What the proxy says of itself: Prometheus metrics, a JSON access log, and its own log.

Theory of operation. A request costs some tens of microseconds in all, so nothing here may cost one of them where
requests run. The request path does three kinds of thing and no more: it adds to plain attributes and dicts
(`Metrics`, `Series`, `Histogram`), it appends one `AccessRecord` to a queue (`AccessLog.append`), and it logs
events that are rare. It takes no lock, builds no label string and calls no metrics library.

- `table.py` is the one list of metrics; the exposition and `docs/metrics.md` are made from it.
- `metrics.py` holds the counters. Their one writer is the event loop's thread. What lives elsewhere (in-flight,
  status, weights, connections) is never copied: it is read from the live objects while a scrape is answered.
- `exposition.py` gathers both at scrape time, and `text.py` writes them in Prometheus' format.
- `access_log.py` owns the queue and a writer thread; `line.py` makes the text, `sink.py` does the writing without
  ever waiting for a reader. Memory is bounded twice (records queued, bytes pending); what exceeds it is
  dropped and counted. A full disk, a closed pipe or a reader that stopped reading cannot slow a request down.
- `log.py` sets up the `llmproxy` logger for people.

Cardinality: pools and backends are the configuration's. A model becomes a label only when it is known (configured,
or reported by a backend) and among the first `max_models`; any other name counts as `other`, so a client cannot
make series by inventing names.
"""
