"""The admin port: what the fleet looks like, and the few things an operator may do to it.

    GET  /admin/pools                               every pool with its backends
    GET  /admin/pools/{pool}                        one of them
    GET  /admin/pools/{pool}/explain                where a request would go now, and why; `?model=`, `?prompt_bytes=`
    POST /admin/pools/{pool}/explain                the same for the request that is the body
    POST /admin/pools/{pool}/backends/{id}/drain    no new work; what runs there finishes
    POST /admin/pools/{pool}/backends/{id}/undrain
    GET  /admin/queue                               who waits for a place
    GET  /admin/tenants                             what each tenant used, as far as this process knows
    GET  /admin/tenants/{tenant}                    one of them, and what is left of its limits; `?model=`
    POST /admin/tenants/{tenant}/limits             other limits than its tier's, until the body is `null`
    POST /admin/reload                              read the configuration again; 422 with the problems when it is bad
    POST /admin/pools/{pool}/backends               register a backend for a while (`ttl`); DELETE .../{id}
    GET  /admin/scaling                             every pool that is scaled; /{pool} one of them
    GET  /admin/scaling/{pool}/decisions            what was decided lately, from what and why
    GET  /admin/scaling/{pool}/recommendations      replica-hours that could be dropped, from a replay of its traffic
    POST /admin/scaling/{pool}/event                a floor for a while; DELETE takes all of them away
    POST /admin/scaling/pause, .../resume           the kill switch, of one pool or of all
    GET  /metrics                                   Prometheus
    GET  /livez                                     200 while the process serves at all
    GET  /readyz                                    200 when a request could be placed now, else 503

Who may ask (`guard.py`, denied by default):

* `/livez` and `/readyz` are open: they tell nothing but yes or no, and health checkers carry no tokens.
* With a token set, everything else needs `Authorization: Bearer TOKEN`, /metrics too. `admin.tokens` has roles:
  a `viewer` may look, a `scaler` also change scaling and register backends, an `admin` do everything.
* Without one, only a loopback port is served, and only under a loopback name: a web page that points its own name
  at 127.0.0.1 (DNS rebinding) is refused by its Host header.
* A POST that a web page of another origin makes a browser send is refused, whoever asks.

Ready means: not draining, and at least one pool has a backend that may be given work. While every engine is gone
there is nothing this proxy can do that another could not do better. A pool whose breakers are all open still counts
(panic lets requests through), so a passive verdict alone never takes all proxies out of their load balancer at once.

Nothing here writes fleet state itself: drains go to the health registry, reloads to the reloader.
"""
