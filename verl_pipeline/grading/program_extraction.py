"""Extracts the program from a model's response.

The program is the last fenced block of the answer that says it is Python. Without one, it is the
last that says nothing; without that, the last of any kind, because a label may be wrong.
LiveCodeBench takes the text between the last two lines with three backticks, rLLM the last block;
both take an example of the output behind the program for the program. In 3,208 responses of 227
chat models with a block that says it is Python (AlpacaEval), an unlabelled block is the last 211
times, and never a program.

Invariants:
* Only the response is searched: a fenced block of the prompt never counts.
* Text before the last ``</think>`` is reasoning, not the answer; a response whose reasoning never
  ends has no answer.
* A fenced block that is never closed is no program: the response was cut off. If the last block is
  one, there is no program, because the blocks before it are drafts.
* The time is linear in the length of the response.
"""

import re
from bisect import bisect_right

from verl_pipeline.grading.fenced_blocks import FencedBlock, read_fenced_blocks

_OPENING, _CLOSING = "<think>", "</think>"
_LINE_BREAK = "\n".rjust(len(_CLOSING))
# Tokens that models end a sequence with: <|im_end|>, <|endoftext|>, <|eot_id|>, DeepSeek's
# <｜end▁of▁sentence｜> (full-width bars), </s>, <eos>, <pad>, <end_of_turn>.
_END_TOKEN = re.compile(r"<\|\w+\|>|<｜[^<>\s]+｜>|</s>|<eos>|<pad>|<end_of_turn>", re.IGNORECASE)
_MAX_END_TOKEN_CHARACTERS = 40
# The first word of an info string: "python" of "python3", of `python title="x"`, of "{.python}".
_LABEL = re.compile(r"[^\s{}.,:;=][^\s{},:;=]*")
_PYTHON_LABEL = re.compile(r"(?:[ic]?python|pypy|py)[0-9.]*|.+\.py", re.IGNORECASE)


def extract_answer_text(response: str) -> str:
    r"""Return the text after the last ``</think>``, with ``\n`` as the only line break.

    Returns the whole response if it does not reason, and an empty string if its reasoning never
    ends. Tokens that end a sequence are left out.

    Reasoning begins with ``<think>`` as the first word of the response or of the text after a
    ``</think>``, or alone on a line. It ends with ``</think>`` anywhere, because not all models
    break the line there. Both are mere mentions

    * in quotation marks or backticks: ``print("</think>")``;
    * in a complete fenced block, unless ``</think>`` stands alone on its line, or another fence
      follows it within the block (the block was then left open by the reasoning).
    """
    text = _strip_end_tokens(response.replace("\r\n", "\n").replace("\r", "\n"))
    end = _find_end_of_reasoning(text)
    answer = text[end:]
    return "" if _begins_reasoning(answer) else answer


def extract_last_program(response: str) -> str | None:
    """Return the program of the answer, or None; the module's docstring says which block that is.

    The block's indentation is taken off, also that of a list item or quote around it. A fence
    inside a longer fence belongs to the text of the longer one.
    """
    blocks = read_fenced_blocks(extract_answer_text(response))
    if not blocks or not blocks[-1].is_closed:
        return None
    last_of_kind = {_get_kind(block): block for block in blocks if block.is_closed}
    program = last_of_kind[max(last_of_kind)].text
    return program if program.strip() else None


def _get_kind(block: FencedBlock) -> int:
    """Return 2 if a block says that it is Python, 1 if it says nothing, else 0."""
    label = _LABEL.search(block.info)
    if label is None:
        return 1
    return 2 if _PYTHON_LABEL.fullmatch(label[0]) else 0


def _strip_end_tokens(text: str) -> str:
    end = len(text)
    while True:
        while end and text[end - 1].isspace():
            end -= 1
        start = text.rfind("<", max(end - _MAX_END_TOKEN_CHARACTERS, 0), end)
        if start < 0 or not _END_TOKEN.fullmatch(text, start, end):
            return text[:end]
        end = start


def _find_end_of_reasoning(text: str) -> int:
    """Return where the answer begins: behind the last ``</think>`` that is no mention, or at 0."""
    # A tag that is alone on its line is none, so only the text after the last one is searched.
    alone = f"\n{text}\n".rfind(f"\n{_CLOSING}\n")
    begin = alone + len(_CLOSING) if alone >= 0 else 0
    spans: list[tuple[int, int]] | None = None
    position = len(text)
    while (position := text.rfind(_CLOSING, begin, position)) >= 0:
        if _is_quoted(text, position):
            continue
        spans = _find_spans_of_code(text, begin) if spans is None else spans
        if not _is_inside(position, spans):
            return position + len(_CLOSING)
    return begin


def _begins_reasoning(answer: str) -> bool:
    if answer.lstrip().startswith(_OPENING):
        return True
    position = f"\n{answer}\n".rfind(f"\n{_OPENING}\n")
    return position >= 0 and not _is_inside(position, _find_spans_of_code(answer, 0))


def _is_quoted(text: str, position: int) -> bool:
    """Whether the tag at ``position`` is in quotation marks or backticks, and not at a fence."""
    end = position + len(_CLOSING)
    before, after = text[position - 1 : position], text[end : end + 1]
    return before == after != "" and before in "\"'`" and not text.startswith("```", end)


def _find_spans_of_code(text: str, begin: int) -> list[tuple[int, int]]:
    """Return where the complete blocks of ``text[begin:]`` are, each from its last inner fence on.

    Returns nothing if the last block is never closed: then any fence may be misread.
    """
    # A fence may follow the tag on its line, so the tag is read as a line break.
    lines = text[begin:].replace(_CLOSING, _LINE_BREAK)
    blocks = read_fenced_blocks(lines)
    if not blocks or not blocks[-1].is_closed:
        return []
    line_starts = [begin]
    for line in lines.split("\n"):
        line_starts.append(line_starts[-1] + len(line) + 1)
    spans = []
    for block in blocks:
        if block.is_closed:
            first, last = line_starts[block.lines[0] + 1], line_starts[block.lines[1] - 1]
            first = max(first, text.rfind("```", first, last), text.rfind("~~~", first, last))
            spans.append((first, last))
    return spans


def _is_inside(position: int, spans: list[tuple[int, int]]) -> bool:
    index = bisect_right(spans, position, key=lambda span: span[0]) - 1
    return index >= 0 and position < spans[index][1]
