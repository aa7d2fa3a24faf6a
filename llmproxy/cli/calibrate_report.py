"""What stands above the values in a profile's file: what was measured, and how near the profile comes to it."""

from collections.abc import Iterator

from llmproxy import __version__
from llmproxy.calibrate.run import Calibration


def comments(made: Calibration) -> str:
    """Lines of YAML comment."""
    return "".join(f"# {line}\n" for line in _lines(made))


def _lines(made: Calibration) -> Iterator[str]:
    fit, found = made.fit, made.found
    yield f"llmproxy {__version__} calibrate; what was measured, and how far the profile is off:"
    for prompt, off in zip(found.prompts, fit.prompt_errors, strict=True):
        yield f"  prompt of {prompt.prompt_tokens:,} tokens: {prompt.seconds * 1e3:,.1f} ms, {off:+.1%}"
    for decode, off in zip(found.decodes, fit.decode_errors, strict=True):
        held = f"{decode.sequences} decoding, {decode.kv_tokens:,.0f} tokens held"
        yield f"  {held}: {decode.seconds * 1e3:,.1f} ms a step, {off:+.1%}"
    for one in made.assumed:
        yield f"assumed: {one}"
