"""Single pieces of the hot path, timed alone: `python -m bench.micro [WORD]` runs those with WORD in their name.

To find out what a change costs or saves before `python -m bench` says what it is worth. Numbers of pieces do not add
up to the cost of a request: most of that is the kernel's, and caches are warmer here.
"""
