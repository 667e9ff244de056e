"""verl's reader of boxed answers, as its reward for DAPO's maths problems has it."""

from verl.utils.reward_score.math_dapo import last_boxed_only_string, remove_boxed


def extract_boxed_answer(text: str) -> str | None:
    """Return the content of the last ``\\boxed{...}``, with balanced braces.

    Returns None if there is no box, or if it is never closed.
    """
    boxed = last_boxed_only_string(text)
    return None if boxed is None else remove_boxed(boxed)
