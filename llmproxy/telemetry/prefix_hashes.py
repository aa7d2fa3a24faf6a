"""What the access log says of how prompts begin: hashes that are equal where prompts are, and worth nothing else.

The hashes that routing uses would not do. Each goes into the next one and no key into any but the first, so whoever
reads two of them in a row could test what the text between them said. Here each is put through BLAKE2b under a
secret key (RFC 7693): without the key nothing can be tested, and with it only whole prefixes of the prompt.
"""

import hashlib
from collections.abc import Sequence

from llmproxy.telemetry.record import AccessRecord, PromptRecord


def hide_prompts(records: Sequence[AccessRecord], key: bytes) -> None:
    """Put keyed hashes, 16 hexadecimal digits each, in the place of routing's. Doing it twice changes nothing."""
    keyed = hashlib.blake2b(key=hashlib.blake2b(key).digest(), digest_size=8)
    for record in records:
        if isinstance(record, PromptRecord):
            record.prefix_hashes = [
                _hidden(block, keyed) if isinstance(block, int) else block for block in record.prefix_hashes
            ]


def _hidden(block: int, keyed: "hashlib.blake2b") -> str:
    hashed = keyed.copy()
    hashed.update(block.to_bytes(8, "little"))
    return hashed.hexdigest()
