"""The tool of multi-turn runs; verl imports this file for each agent loop worker."""

from verl.tools.function_tool import function_tool


@function_tool
def look_up(letter: str) -> str:
    """Say something about a letter.

    Args:
        letter: which one.
    """
    return f"{letter} is a letter"
