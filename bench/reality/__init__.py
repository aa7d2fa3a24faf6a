"""Whether the simulator tells the truth: the same requests, once for real and once in virtual time.

What it decides: nothing in production; it says how far figures of `llmproxy.sim` can be believed. Two experiments:

- `engines` (two real vLLM engines on this machine's CPU): calibrates a profile, puts a load on them through the real
  proxy, replays exactly those requests in the simulator, and compares TTFT and ITL. And: chats with shared prefixes,
  under `least_connections` and under `expected_cost`, with the engines' own count of cache hits.
- `emulated` (eight emulated engines behind the real proxy): real traffic at several times its speed, and engines that
  are as much faster. Policies are to rank as they do in the simulator, as far as that tells them apart at all.

`play` sends, `model` simulates, `traffic` and `chats` make the requests, `report` compares.
"""
