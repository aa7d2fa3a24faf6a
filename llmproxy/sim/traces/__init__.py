"""Files of real traffic -> arrivals to replay.

One format a file, named in `registry`; which one a file has is told from its first lines, never from its name. Files
may be packed with gzip. A reader turns one line at a time into an `Arrival`:

- `columns`: this project's own CSV, with prefix blocks where they are known;
- `mooncake`: Mooncake's JSON lines (Qin et al., FAST 2025);
- `azure`: the Azure LLM inference traces (Patel et al., ISCA 2024);
- `burstgpt`: BurstGPT (Wang et al., 2024);
- `access_log`: the access log of this proxy: replay yesterday.

Invariants: a line that cannot be read is counted and reported with its number, and replayed in no guessed form; a line
that is whole but no request to replay (a failed one, another pool's) is counted apart, by reason; a file without one
good line is an error. Arrivals come in the order of time, from second 0 on.
"""

from llmproxy.sim.traces.lines import TraceError
from llmproxy.sim.traces.registry import FORMATS, Trace, read_trace

__all__ = ["FORMATS", "Trace", "TraceError", "read_trace"]
