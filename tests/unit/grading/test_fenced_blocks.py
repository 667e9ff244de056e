"""Our fenced blocks are those of markdown-it-py's own rules, but where the docstring deviates."""

import re
from dataclasses import replace

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tests.helpers.counted_steps import count_steps
from tests.helpers.thinned import thin_out
from verl_pipeline.grading.fenced_blocks import FencedBlock, read_fenced_blocks
from verl_pipeline.grading.program_extraction import extract_last_program

LINES = st.sampled_from(
    [
        *("```", "```python", "````", "~~~", "~~~ text", "``` a`b", "```python ", "```  ", "`` `"),
        *("a", "", "", "    b", "\tc", "- d", "1. e", "2) f", "# g", "---", "===", "* * *"),
        *("[h]: /i", "<j>", "|k|l|", "```` x", "m ```", "\\```", "+", "1.", "> n", ">", "~~~~"),
    ]
)
PREFIXES = st.sampled_from(
    [
        "",
        " ",
        "  ",
        "   ",
        "    ",
        "     ",
        "\t",
        "> ",
        ">",
        "- ",
        "1. ",
        "10) ",
        "-\t",
        "*   ",
        "-     ",
    ]
)
SOUP = st.lists(st.tuples(st.lists(PREFIXES, max_size=3), LINES), max_size=15).map(
    lambda lines: "".join("".join(prefixes) + line + "\n" for prefixes, line in lines)
)


def _nest(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Put documents into a quote or a list item, or behind one another."""

    def indent(marker: str, document: str) -> str:
        rest = marker if ">" in marker else " " * len(marker)
        lines = document.removesuffix("\n").split("\n")
        return "".join((rest if i else marker) + line + "\n" for i, line in enumerate(lines))

    markers = st.sampled_from(["> ", "- ", "1. ", "12) ", "*  ", " - "])
    return st.builds(indent, markers, inner) | st.builds("{}\n{}".format, inner, inner)


FENCED = st.builds(
    "{0}{1}{2}\n{0}x\n{0}    y\n\n{0}{1}{3}\n".format,
    st.sampled_from(["", " ", "   "]),
    st.sampled_from(["```", "~~~~"]),
    st.sampled_from(["", "python", " text x"]),
    st.sampled_from(["", " ", "\t"]),
)
NESTED = st.recursive(FENCED | st.just("Text.\n"), _nest, max_leaves=8)


def _read_with_own_rules(document: str) -> list[FencedBlock]:
    """Read ``document`` with the rules of markdown-it-py, of which HTML is left out."""
    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": 100})
    return [
        FencedBlock(
            token.info.strip(),
            token.content,
            token.map[1] - token.map[0] == token.content.count("\n") + 2,
            tuple(token.map),
        )
        for token in parser.parse(document)
        if token.type == "fence"
    ]


@settings(max_examples=300, deadline=None)
@given(NESTED)
def test_blocks_of_well_formed_documents_are_those_of_commonmark(document):
    assert read_fenced_blocks(document) == _read_with_own_rules(document)


@settings(max_examples=1000, deadline=None)
@given(SOUP)
@example("- a\n\n  ```python\n  x\n  ```\n> ~~~\n> y\n> ~~~\n")
@example("[a]: b\n```\nx\n```\n")
def test_blocks_of_any_document_are_those_of_commonmark(document):
    expected = _read_with_own_rules(document)
    # Ours takes the definition of a link for text, as CommonMark says: a line without the quote's
    # mark continues it, and neither an empty list item nor one with a number above 1 ends it.
    assume(not re.search(r">.*\]:", document))
    assume(not re.search(r"\]:.*\n[ \t]*(?:[-+*][ \t]*\n|\d+[.)])", document))
    # Ours deviates where a list item ends within a fence.
    assume(all(block.is_closed for block in expected[:-1]))
    assume(not expected or expected[-1].is_closed or expected[-1].lines[1] == document.count("\n"))
    # Ours may leave more indentation where the first line of code has less than its fence.
    assert list(map(_strip_lines, read_fenced_blocks(document))) == list(
        map(_strip_lines, expected)
    )


def _strip_lines(block: FencedBlock) -> FencedBlock:
    lines = block.text.split("\n")
    return replace(block, text="\n".join(line.lstrip(" \t") for line in lines))


HOSTILE = {
    "quotes": lambda n: ("> " * 60 + "a\n") * n,
    "lists": lambda n: "- a\n" * n,
    "markers": lambda n: "+ " * n + "```\n",
    "rules": lambda n: "- - - - x\n" * n,
    "steps": lambda n: "".join("> " * (i % 60) + "a\n" for i in range(n)),
    "fences": lambda n: "".join("`" * (3 + i % 60) + "\n" for i in range(n)),
    "open fences": lambda n: "```a\n" * n,
    "one fence": lambda n: "`" * n + "\n",
    "tags in text": lambda n: "a</think> <think>" * n,
    "tags in quotes": lambda n: "'</think>'" * n,
    "tags in code": lambda n: "```\n" + "x </think>\n" * n + "```\n",
    "tags and fences": lambda n: "```\nx </think> x\n```\n" * n,
    "tags in one line of code": lambda n: "```\n" + "x </think>" * n + "\n```\n",
    "end tokens": lambda n: "x" + "<|im_end|>" * n,
    "brackets": lambda n: "<" * n,
    "references": lambda n: "[a]: b\n" * n,
    "blank lines": lambda n: "+ " * 40 + "a\n" + "\n" * n,
}


@pytest.mark.parametrize("name", thin_out(HOSTILE, keep=5))
def test_the_time_is_linear_whatever_the_response_is(name):
    make_response = HOSTILE[name]
    few, many = (count_steps(extract_last_program, make_response(n)) for n in (500, 2000))
    assert many < 5 * few + 1000, f"{few} and {many} steps"
