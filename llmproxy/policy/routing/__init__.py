"""Which backend gets the request.

A policy answers `pick(candidates, request, now)`. The candidates are already eligible (healthy, awake, not draining,
with room) and never empty, so no policy asks about health; it only weighs. Invariants, checked for every entry of
the registry by one contract suite: the answer is one of the candidates; a single candidate is always the answer; the
same seed and the same calls give the same answers; candidates may differ from call to call (a retry leaves out the
backends it has tried); what is known of a backend goes with `forget`.

A backend's pull is `Backend.weight`: the configured weight, scaled down by the health registry while the backend slow
starts, and never 0. Load is `Backend.load.in_flight`, counted until a stream ends. Where costs
are compared they are those *after* placing the request, `(in_flight + 1) / weight`: of two idle backends the heavier
one is then the better place. `least_connections` compares what there is, `in_flight / weight`, and lets equals take
turns.

State (turns, cached hashes) has one writer, the policy itself, and lives as long as the pool.

Rendezvous hashing: Thaler & Ravishankar, "Using name-based mappings to increase hit rates" (1998); its weighted form is
-w / ln(u). Bounded load: Mirrokni, Thorup & Zadimoghaddam, "Consistent Hashing with Bounded Loads" (2016). Two choices:
Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing" (2001).

LoRA adapters: `adapters.py` says which candidates lack the one asked for, and policies prefer the others. Prefill and
decode on different backends: `pairs.py` says where that would come in.

Adding one: a file with a class (`options_type`, and a constructor taking the parsed options and an rng), and a line in
`registry.py`. Third parties name such a class in the entry point group `llmproxy.routing`.
"""
