"""All that can be set about a pool's admission, as plain values."""

from dataclasses import dataclass, field

from llmproxy.policy.admission.deadline import Slo
from llmproxy.policy.admission.hedge import HedgeOptions
from llmproxy.policy.admission.lanes import Lane
from llmproxy.policy.admission.queue import Bounds
from llmproxy.policy.admission.saturation.adaptive import AdaptiveOptions
from llmproxy.policy.admission.tenant_share import AUTO


@dataclass(frozen=True, slots=True)
class AdmissionOptions:
    """`backlog_s` 0: the backlog counts for nothing. `adaptive` None: no limit is learned."""

    bounds: Bounds = field(default_factory=Bounds)
    backlog_s: float = 0.3
    slo: Slo = field(default_factory=Slo)
    lanes: tuple[Lane, ...] = ()
    tenant_share: float = AUTO
    """Of the backends, on which one tenant's prompts may be computed at once beside others. `AUTO`: what they leave,
    where the routing policy knows what waits in the engines."""
    adaptive: AdaptiveOptions | None = None
    hedge: HedgeOptions = field(default_factory=HedgeOptions)
    ttft_missing: float = 0.05
    """Share of first tokens that may come late before less is let in."""
    wait_missing: float = 0.05
    """Share of those who wait that may do so in vain before more are shed when they come."""
    tpot_missing: float = 0.1
    """Share of answers that may be slow before less is let in."""
