"""The life of a request, and the telling of it.

`handler.serve` is the story, top to bottom: classify (the body, once) -> resolve the model -> choose -> relay ->
account. It is a coroutine driven by hand (`llmproxy.core.step`): it awaits only signals, costs no asyncio task, and is
cancelled at its await the moment the client leaves. `Exchange` is what it works on: everything that belongs to
one request, given back on every path out. What requests share is the `Site`; the story's longer chapters have files of
their own (`classify`, `room`, `tries`, `upload`, `answering`).

Three states of the client's side decide what a failure may still become: nothing sent (try elsewhere), head or
comments sent (an event-stream can still end with an error event), engine bytes sent (likewise; other bodies are cut).
"""
