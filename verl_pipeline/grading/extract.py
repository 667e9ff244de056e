"""The program in a model's response.

Invariants:
* Only the response is looked at: a fence of the prompt can never count.
* What stands before the last ``</think>`` is thought, not answer; a thought that never ends holds
  no answer.
* A fence that is never closed holds no program: the response was cut off.
"""

import re

# CommonMark 0.31: up to three spaces, then at least three backticks or tildes, then the info
# string, which for backticks holds none.
_FENCE = re.compile(r"^ {0,3}(?P<mark>`{3,}|~{3,})(?P<info>.*)$")


def answer_part(response: str) -> str:
    """What follows the last ``</think>``; all of it where no thought was opened; nothing of a
    thought left open.
    """
    head, closed, tail = response.rpartition("</think>")
    if closed:
        return tail if "<think>" not in tail else ""
    return "" if "<think>" in response else response


def last_program(response: str) -> str | None:
    """The last complete fenced block of the answer, or None; a fence inside a longer one belongs to
    its text.
    """
    program: str | None = None
    mark: str | None = None
    lines: list[str] = []
    for line in answer_part(response).replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        fence = _FENCE.match(line)
        if mark is None:
            if fence and not (fence["mark"][0] == "`" and "`" in fence["info"]):
                mark, lines = fence["mark"], []
        elif fence and fence["mark"].startswith(mark) and not fence["info"].strip():
            program, mark = "\n".join(lines), None
        else:
            lines.append(line)
    # A block that was opened and never closed is the last one: what came before was not the final
    # answer.
    return None if mark is not None or program is None or not program.strip() else program + "\n"
