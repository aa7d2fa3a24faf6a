"""What is wrong between keys, tiers and pools."""

from collections.abc import Iterator
from itertools import chain

from llmproxy.config.auth import KeyConfig
from llmproxy.config.draft import Draft
from llmproxy.config.problem import Path


def check_auth(draft: Draft) -> Iterator[tuple[Path, str]]:
    """Everything wrong with who may ask."""
    yield from _unique_keys(draft)
    yield from _none_means_none(draft)
    yield from _upstream(draft)


def tiers_named(draft: Draft) -> Iterator[tuple[Path, str]]:
    """Where a tier is named, and which."""
    places = chain(
        ((*key, "tier") for key in draft.entries(("keys",))), (("auth", "anonymous"), ("auth", "jwt", "tier"))
    )
    for path in places:
        name = draft.raw(path)
        if isinstance(name, str) and name:
            yield path, name


def _unique_keys(draft: Draft) -> Iterator[tuple[Path, str]]:
    names: set[str] = set()
    digests: dict[bytes, str] = {}
    for path in draft.entries(("keys",)):
        key = draft.part(KeyConfig, path)
        if key is None:
            continue
        if key.name in names:
            yield (*path, "name"), f"there is a key called {key.name!r} already"
        names.add(key.name)
        if key.digest in digests:
            yield path, f"the same key as {digests[key.digest]!r}"
        digests.setdefault(key.digest, key.name)


def _none_means_none(draft: Draft) -> Iterator[tuple[Path, str]]:
    if draft.raw(("auth",)) == "none" and draft.entries(("keys",)):
        yield ("auth",), "none, but there are keys, so that one is required: leave one of the two out"


def _upstream(draft: Draft) -> Iterator[tuple[Path, str]]:
    for pool in draft.entries(("pools",)):
        if draft.raw((*pool, "forward_authorization")) in (True, "true") and draft.raw((*pool, "upstream_key")):
            yield (
                (*pool, "forward_authorization"),
                "of no use with upstream_key, which is sent instead",
            )
