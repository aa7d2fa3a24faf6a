"""The life of a request, and the telling of it.

`handler.serve` is the story, top to bottom: classify (the body, once) -> resolve the model -> choose -> relay ->
account. It is a coroutine driven by hand (`llmproxy.core.step`): it awaits only signals, costs no asyncio task, and is
cancelled at its await the moment the client leaves. `Exchange` is what it works on: everything that belongs to
one request, given back on every path out. What requests share is the `Site`; the story's longer chapters have files of
their own (`classify`, `room`, `tries`, `upload`, `heartbeat`, `hedging`, `answering`).

Three states of the client's side decide what a failure may still become: nothing sent (try elsewhere), our head
and comments sent (likewise, but what cannot be mended ends the event-stream with an error event), engine bytes sent
(an event-stream ends with an error event, other bodies are cut).
"""
