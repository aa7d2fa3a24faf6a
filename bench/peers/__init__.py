"""The proxies that are compared, one file each; the order is the order of the tables.

Adding one: a subclass of `Peer` in a file of its own, and one line here.
"""

from bench.peers.base import Peer
from bench.peers.haproxy import HAProxy
from bench.peers.litellm import LiteLLM
from bench.peers.llmproxy import CompiledLlmproxy, Llmproxy
from bench.peers.nginx import Nginx
from bench.peers.smg import Smg
from bench.peers.vllm_router import VllmRouter

PEERS: tuple[type[Peer], ...] = (Nginx, HAProxy, Llmproxy, CompiledLlmproxy, VllmRouter, Smg, LiteLLM)
OPTIONAL = frozenset({"smg", "litellm"})
"""Measured when installed; not missed otherwise."""
