"""Fits a simulator's profile (`llmproxy.sim.profile`) to an engine that runs: `llmproxy calibrate`.

What it decides: the sizes and times that make the modelled engine as fast as the real one. Three parts:

- `engine.py` asks an engine: what it says of itself (`/metrics`, `/v1/models`, and `/server_info` where it has that),
  and for streams whose every token gets its time;
- `probes.py` puts questions to it whose answers tell the times apart: lone prompts of several lengths that no cache
  knows, batches of several sizes that decode, short and long contexts, and one prompt twice;
- `fit.py` finds the times: pure, and by least squares. A step is a sum of terms that are all known but for their
  factors (`Profile.step_s`), so a lone prompt is one equation for the factors and a decoding batch is another.

Invariants. No factor is negative. Errors are relative: a short time counts as much as a long one. Of repeated probes
the median counts, as other work on the machine only ever adds. The engine should have nothing else to do meanwhile;
whether it had is looked at before and after. Engines that share a machine slow each other down: give them all, and they
are probed side by side, as they will run.
"""
