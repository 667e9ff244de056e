"""Extracts the program from a model's response.

Invariants:
* Only the response is searched: a fenced block of the prompt never counts.
* Text before the last ``</think>`` is reasoning, not the answer; a response whose reasoning never
  ends has no answer.
* A fenced block that is never closed is no program: the response was cut off.
"""

import re

# CommonMark 0.31: up to three spaces, then at least three backticks or tildes, then the info
# string, which must not contain a backtick if the fence consists of backticks.
_FENCE = re.compile(r"^ {0,3}(?P<mark>`{3,}|~{3,})(?P<info>.*)$")


def extract_answer_text(response: str) -> str:
    """Return the text after the last ``</think>``.

    Returns the whole response if it has no ``<think>``, and an empty string if its reasoning never
    ends.
    """
    head, closed, tail = response.rpartition("</think>")
    if closed:
        return tail if "<think>" not in tail else ""
    return "" if "<think>" in response else response


def extract_last_program(response: str) -> str | None:
    """Return the last complete fenced block of the answer, or None.

    A fence inside a longer fence belongs to the text of the longer one.
    """
    program: str | None = None
    mark: str | None = None
    lines: list[str] = []
    for line in extract_answer_text(response).replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        fence = _FENCE.match(line)
        if mark is None:
            if fence and not (fence["mark"][0] == "`" and "`" in fence["info"]):
                mark, lines = fence["mark"], []
        elif fence and fence["mark"].startswith(mark) and not fence["info"].strip():
            program, mark = "\n".join(lines), None
        else:
            lines.append(line)
    # If the last block is still open, the final answer was cut off, and the blocks before it are
    # drafts.
    return None if mark is not None or program is None or not program.strip() else program + "\n"
