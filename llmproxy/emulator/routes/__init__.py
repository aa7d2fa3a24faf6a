"""vLLM's routes, one group a file. A file offers `ROUTES`: path and method to a handler.

A handler answers on the reply, at once or through a `Generation`; it may raise `ApiError` as long as nothing is sent.
"""
