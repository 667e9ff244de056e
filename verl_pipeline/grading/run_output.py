"""What a test's run wrote, compared with the expected output or encoded for a checker.

Invariant: for a checker, what a function returned is not parsed here.
"""

from verl_pipeline.grading.output_comparison import is_matching_text, is_matching_value
from verl_pipeline.grading.problem import CallTest, Comparison, StdinTest
from verl_pipeline.grading.returned_values import decode_returned_value
from verl_pipeline.sandbox.inside.value_codec import MAX_CHARACTERS, ValueRefused, encode_value


def is_matching_output(test: StdinTest | CallTest, output: bytes, comparison: Comparison) -> bool:
    """Whether the standard output, or the returned value, matches the expected one.

    Raises:
        ValueRefused: it is not one value.
    """
    if isinstance(test, StdinTest):
        return is_matching_text(_decode_text(output), test.output, comparison)
    value = decode_returned_value(output, test.output)
    return is_matching_value(value, test.output, comparison) or (
        test.boxed and is_matching_value(value, [test.output], comparison)
    )


def encode_output(test: StdinTest | CallTest, output: bytes) -> str:
    """Return the output as an encoded value, as far as a checker could take it.

    Raises:
        ValueRefused: it is too long for a checker.
    """
    # A byte that is no UTF-8 becomes six characters of JSON.
    if len(output) > MAX_CHARACTERS // 6:
        raise ValueRefused(f"{len(output)} bytes are too long for a checker")
    text = _decode_text(output)
    return encode_value(text) if isinstance(test, StdinTest) else text


def _decode_text(output: bytes) -> str:
    return output.decode(errors="replace")
