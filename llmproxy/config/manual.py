"""The words of docs/configuration.md that are not descriptions of fields: what comes before each table."""

INTRO = """\
# Configuration

<!-- Made from the configuration's model. Change the model, then run `python -m llmproxy.config.reference`. -->

One YAML file describes everything. The shortest one that works:

```yaml
pools:
  main:
    backends: ["http://10.0.1.10:8000", "http://10.0.1.11:8000"]
```

`llmproxy check FILE` says what is wrong with a file, all of it at once, each with its line; `llmproxy check --live
FILE` also asks every backend. `llmproxy schema` prints a JSON Schema for editors. `config/` holds an example of each
feature, and `config/full.yaml` every key.

**Durations** are a number and a unit: `250ms`, `30s`, `5m`, `1h`, `1m30s`; without a unit, seconds. **Sizes** likewise:
`32MiB`, `64KiB`, `1GB`; without a unit, bytes. **Counts** are whole numbers, also as `20k` or `1.5M`. **Shares** are
`0.2` or `20%`. Booleans are `true` and `false`.

**Values from outside**, anywhere in a value (never in a key):

| written | becomes |
|---|---|
| `${NAME}` | the environment variable; an error when it is not set |
| `${NAME:-default}` | the same, or `default` when it is not set or empty |
| `${file:/run/secrets/key}` | the content of the file, without the newline at its end |
| `$${` | a literal `${` |

They are put in after the file was parsed, so a value cannot add keys or lists, and messages never show them. They do
for numbers and booleans too, a policy's options among them. Put quotes around them inside of `{...}` and `[...]`.

**File names** are relative to the folder of the configuration file. **Unknown keys**, keys given twice and tags are
errors. Anchors, aliases and `<<` merges work. A key with nothing behind it counts as absent.

A running proxy reloads the file when it changes, on SIGHUP and on `POST /admin/reload`: it is validated and swapped
whole, or the old one stays. A change of a file that it names counts too: certificates and keys, authorities (`ca`) and
`${file:...}`. `server.host`, `server.port`, `admin.host`, `admin.port`, `logging.file`, `logging.prefix_hashes` and
`logging.prefix_salt` take effect at the next start only, and so does switching `server.tls` on or off; other
certificates are served to new connections at once.
"""

SECTIONS = {
    "server": """\
```yaml
server:
  port: 8443
  tls: {cert: tls.crt, key: tls.key}
  trusted_proxies: [10.0.0.0/8]
```

""",
    "admin": """\
```yaml
admin: {host: 0.0.0.0, port: 8081, token: "${LLMPROXY_ADMIN_TOKEN}"}
```

""",
    "pools": """\
A mapping: the pool's name (letters, digits, `.`, `_`, `-`) to its settings. A backend is a URL, or a mapping with a
`url`. A policy is a name, or a mapping of its `name` and its options.

```yaml
pools:
  llama:
    policy: {name: session_affinity, header: x-session-id}
    backends:
      - {url: "http://10.0.1.10:8000", weight: 3, max_concurrency: 64}
      - "http://10.0.1.11:8000"
    upstream_key: "${file:/run/secrets/vllm-key}"
```

Policies: `least_connections` (the default), `expected_cost` (recommended for LLMs), `prefix_affinity`, `scored`,
`kv_headroom`, `gpu_utilization`, `round_robin`, `random`, `weighted`, `power_of_two`, `ip_hash` and `session_affinity`
(see [Choosing a backend](routing.md)). A pool that has `scaling` lists no backends: its `actuator` starts and stops
them (see [Actuators](actuators.md)). Its policies are `demand`, `forecast`, `rules`, `hold`, `steps`, `target` and
`schedule`. A backend's id must be unique among all pools, because metrics, logs and headers
show nothing else of it.

""",
    "models": """\
A name that is not here is answered 404 `model_not_found`. With several pools, `models` (or `routes`) is needed. A
`rewrite` is sent as it is: it is not looked up here again.

```yaml
models:
  llama-3-8b: {pool: llama}
  gpt-4o: {pool: llama, rewrite: llama-3-8b}
```

""",
    "tiers": """\
A mapping: the tier's name to what each of its tenants may use. Three are there unless the file has others of the same
name: `free` (10 requests a minute, low priority), `paid` (60 requests a minute) and `enterprise` (no limits, high
priority). See [Limits](limits.md).

```yaml
tiers:
  free: {requests_per_minute: 10, tokens_per_minute: 20k, concurrency: 2, priority: low}
  paid:
    requests_per_minute: 60
    tokens_per_minute: 200k
    burst: {requests: 20}
    budgets: {tokens_per_day: 5M}
```

""",
    "limits": """\
```yaml
limits:
  store: "redis://10.0.9.1:6379/0"
  on_store_failure: local
  prices:
    llama-3-8b: {prompt: 0.15, completion: 0.60}
```

""",
    "routes": """\
For paths that carry no model, or whose pool no model decides.

```yaml
routes:
  - {path: /retrieve, pool: vectors}
  - {path: /, pool: llama}
```

A route covers its path and everything below it. It says where requests go, not what they are: `/v1/embeddings` stays
an inference route with its body read and its retries.

A path of `/` is a catch-all for what nothing else claims: paths that the proxy does not know (404 without it), requests
that name no model and, when there are no `models`, those that do. A model that is not in `models` stays a 404,
`/v1/models` and `/health` are answered by the proxy itself, and engine control stays closed: no route opens it, only
`server.allow_routes` does.
""",
    "keys": """\
Whoever asks sends one as `Authorization: Bearer KEY`, `x-api-key` or `api-key`; without a good one, requests are
answered 401 before their body is read. Each is given as its SHA-256, as a value from the environment, or in a file
(watched for changes); only the SHA-256 is kept. See [Who may ask](auth.md).

```yaml
keys:
  - {name: acme, tier: paid, sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08}
  - {name: dev, tier: free, value: "${DEV_KEY:-sk-only-for-trying}"}
```

""",
    "auth": """\
`auth: none`, and nothing of the kind in the file, is the default: nobody is asked for a key, which the log says at
start.

```yaml
auth:
  store: redis://10.0.9.1:6379/0      # keys made with `llmproxy keys`
  jwt: {issuer: https://id.example.com, audience: [llm], tier: free}
```

""",
}
