"""llmproxy: one OpenAI-compatible endpoint in front of a fleet of vLLM servers."""

__version__ = "0.1.0"
