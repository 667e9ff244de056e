"""Reads the fenced blocks of a model's response, as CommonMark 0.31 defines them.

markdown-it-py reads the containers: list items, block quotes, indented code, headings. Four
deviations make room for what models write:

* HTML is text. A line such as ``<answer>`` would otherwise turn the fence after it into HTML.
* A list item does not end within a fence: code that is indented less than its item stays code.
* The definition of a link is text.
* Code whose first line is indented less than its fence loses no more than the indentation of that
  line, so that it stays valid Python.

Invariants:
* The time is linear in the length of the text, whatever the text is.
* A block is closed only by a closing fence, not by the end of its quote or of the text.
"""

import re
from dataclasses import dataclass

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock

# At least three backticks or tildes, then the info string, which must not contain a backtick if the
# fence consists of backticks.
_FENCE = re.compile(r"(?P<mark>`{3,}(?=[^`]*$)|~{3,})(?P<info>.*)", re.DOTALL)
# Of containers; at a deeper one, markdown-it-py ignores the rest of the text. Its default is 20,
# which one line of twelve plus signs exceeds.
_MAX_NESTING = 100


@dataclass(frozen=True)
class FencedBlock:
    """A fenced block.

    Attributes:
        info: what follows the opening fence on its line, such as ``python``.
        text: its lines, without the indentation of the fence.
        is_closed: it has a closing fence.
        lines: numbers of its opening fence, and of the line after the block.
    """

    info: str
    text: str
    is_closed: bool
    lines: tuple[int, int]


def read_fenced_blocks(text: str) -> list[FencedBlock]:
    r"""Return all fenced blocks of ``text``, whose lines must end with ``\n``, in order."""
    return [token.meta["block"] for token in _PARSER.parse(text) if token.type == "fence"]


def _read_fence(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """Read a fenced block that begins in line ``start``: a rule of markdown-it-py."""
    opening = None if state.is_code_block(start) else _FENCE.fullmatch(_get_line(state, start))
    if opening is None or silent:
        return opening is not None
    line = start + 1
    while line < end and not _is_closing_fence(state, line, opening["mark"]):
        line += 1
    # Up to this many columns belong to the fence and its container, not to the code.
    indents = (state.sCount[code] for code in range(start + 1, line) if not state.isEmpty(code))
    indent = min(state.sCount[start], next(indents, 0))
    text = state.getLines(start + 1, line, indent, True)
    is_closed, state.line = line < end, min(line + 1, end)
    block = FencedBlock(opening["info"].strip(), text, is_closed, (start, state.line))
    state.push("fence", "code", 0).meta = {"block": block}
    return True


def _is_closing_fence(state: StateBlock, line: int, mark: str) -> bool:
    text = _get_line(state, line).rstrip(" \t")
    # `text` consists of the mark's character alone, and is at least as long.
    return text.startswith(mark) and not text.strip(mark[0]) and not state.is_code_block(line)


def _get_line(state: StateBlock, line: int) -> str:
    """Return a line without its indentation and the markers of its containers."""
    return state.src[state.bMarks[line] + state.tShift[line] : state.eMarks[line]]


def _make_parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": _MAX_NESTING})
    # What is within a paragraph, and link references, can neither begin nor end a block.
    parser.disable(["inline", "text_join", "reference", "html_block"])
    interrupted = ["paragraph", "reference", "blockquote", "list"]
    parser.block.ruler.at("fence", _read_fence, {"alt": interrupted})
    return parser


_PARSER = _make_parser()
