"""The reference page of the metrics, made from the table.

`python -m llmproxy.telemetry.reference > docs/metrics.md` writes it.
"""

from llmproxy.telemetry.table import TABLE, Metric

_HEAD = """\
# Metrics

Made from `llmproxy/telemetry/table.py` by `python -m llmproxy.telemetry.reference > docs/metrics.md`; a test checks
that this page is current.

The admin port serves them at `/metrics` (by default `http://127.0.0.1:8081/metrics`), together with the usual
`process_*` and `python_info`. `config/prometheus.yml` scrapes them.

- Times are seconds, sizes are bytes.
- `pool` and `backend` are the names in the configuration. `model` is the name the client used, when it is known
  (configured, or reported by a backend); every other name counts as `other`. There are at most 200 model labels.
- `tenant` is the key's tenant, for the first 200 that ask, and `other` for all others; all who were let in without a
  key are `anonymous`.
- `none` stands for a request that got no pool, model or backend: it was refused before.

| metric | type | labels | meaning |
|---|---|---|---|
"""


def reference() -> str:
    """The page as Markdown."""
    rows = "".join(map(_row, TABLE))
    buckets = "".join(
        f"- `{metric.name}`: {', '.join(f'{bound:g}' for bound in metric.buckets)}\n"
        for metric in TABLE
        if metric.buckets
    )
    return f"{_HEAD}{rows}\n## Histogram buckets (upper bounds, seconds)\n\n{buckets}"


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.kind.value} | {labels} | {metric.help} |\n"


if __name__ == "__main__":
    import sys

    sys.stdout.write(reference())
