"""A tokenizer without a vocabulary, and the text the emulated model writes.

A token is four bytes of UTF-8 (about what a token of English is), its id those bytes as a number. So encoding is one
copy, equal prefixes of texts are equal prefixes of tokens, and `decode(encode(text)) == text`.

The model writes words of three letters with a space before them: one word, one token. Which word comes at a place is
computed from the prompt alone, and a prompt that already ends with words of the model is taken for a broken-off answer:
it is continued as it would have gone on. So an answer resumed on another emulator is equal to an uninterrupted one.
"""

import zlib
from array import array
from collections.abc import Sequence

TOKEN_BYTES = 4
ID_MAX = 2**32 - 1

_LINES = (
    " the sun and sea air ice oak elm ash fox owl hen cat dog cow bee ant elk ram jay"
    " red tan new old big low dry wet hot icy raw shy sly wry odd apt fit fat ran sat"
    " saw ate met won led put cut dug fed got hid lay let lit rod set sky day dew fog mud"
)
_WORDS = tuple(_LINES[at : at + TOKEN_BYTES] for at in range(0, len(_LINES), TOKEN_BYTES))
"""61 of them, a prime, so that every stride comes by every word."""
_STRIDES = (1, 3, 5, 7, 11, 13)


def encode(text: str) -> list[int]:
    """Token ids of a text."""
    data = text.encode("utf-8", "surrogatepass")
    ids = array("I")
    ids.frombytes(data + b"\0" * (-len(data) % TOKEN_BYTES))
    return ids.tolist()


def decode(ids: Sequence[int]) -> str:
    """The text of token ids, 0 to `ID_MAX`."""
    return array("I", ids).tobytes().replace(b"\0", b"").decode("utf-8", "replace")


_WORD_IDS = tuple(encode(word)[0] for word in _WORDS)
_IS_WORD = frozenset(_WORD_IDS)


class Script:
    """What the model will write after a prompt: a fixed sequence of words, ended by a length or by a stop string."""

    __slots__ = ("ids", "stop", "words")

    def __init__(self, prompt: Sequence[int], length: int, *, variant: int = 0, stop: Sequence[str] = ()) -> None:
        """`variant` tells the answers to one prompt (`n` > 1) apart."""
        written = 0
        while written < len(prompt) and prompt[-1 - written] in _IS_WORD:
            written += 1
        seed = zlib.crc32(array("I", prompt[: len(prompt) - written]).tobytes(), variant)
        stride = _STRIDES[seed % len(_STRIDES)]
        start = seed // len(_STRIDES) + written * stride
        places = [(start + index * stride) % len(_WORDS) for index in range(length)]
        self.ids = [_WORD_IDS[place] for place in places]
        self.words = [_WORDS[place] for place in places]
        self.stop: str | None = None
        """The stop string that ends it, which is cut off; None when its length ends it."""
        if stop:
            self._cut_at(stop)

    def _cut_at(self, stop: Sequence[str]) -> None:
        text = "".join(self.words)
        found = [(at, mark) for mark in stop if mark and (at := text.find(mark)) >= 0]
        if not found:
            return
        at, self.stop = min(found, key=lambda hit: hit[0] + len(hit[1]))
        tokens = -(-(at + len(self.stop)) // TOKEN_BYTES)
        kept = text[:at]
        self.ids = self.ids[:tokens]
        self.words = [kept[place * TOKEN_BYTES : (place + 1) * TOKEN_BYTES] for place in range(tokens)]


def block_hashes(ids: Sequence[int], block_size: int, salt: str = "") -> list[int]:
    """A hash for each full block of a token sequence, covering everything up to the block's end."""
    chain = zlib.crc32(salt.encode())
    hashes = []
    for start in range(0, len(ids) - block_size + 1, block_size):
        chain = hash((chain, *ids[start : start + block_size]))
        hashes.append(chain)
    return hashes
