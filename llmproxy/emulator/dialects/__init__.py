"""How an answer is written in each API's own words, streaming and whole.

A dialect knows nothing of sockets or engines: `Generation` tells it which choice got a word and how choices end, and
sends the pieces it returns.
"""
