"""The program that is extracted from a response."""

import pytest

from verl_pipeline.grading.program_extraction import extract_last_program

CODE = "print(1)\n"


@pytest.mark.parametrize(
    "response",
    [
        "```python\nprint(1)\n```",
        "```\nprint(1)\n```\n",
        "text\n```Python 3\nprint(1)\n```\ntext",
        "```python\r\nprint(1)\r\n```\r\n",
        "~~~py\nprint(1)\n~~~",
        "```py\nprint(0)\n```\nBetter:\n```py\nprint(1)\n```",
        "<think>```py\nprint(0)\n```</think>\n```py\nprint(1)\n```",
        "thought without a start</think>```py\n```\n\n```py\nprint(1)\n```",
        "  ```python\nprint(1)\n  ```",
    ],
)
def test_the_last_complete_block_of_the_answer_is_the_program(response):
    assert extract_last_program(response) == CODE


@pytest.mark.parametrize(
    "response",
    [
        "",
        "print(1)",
        "```python\nprint(1)",
        "```py\nprint(1)\n```\nNo, rather:\n```py\nprint(2)",  # the final answer was cut off
        "<think>```py\nprint(1)\n```",  # reasoning that never ends
        "<think>```py\nprint(1)\n```</think> I do not know.",
        "```python\n\n```",
        "`print(1)`",
        "    ```python\n    print(1)\n    ```",  # indented code, not a fence
    ],
)
def test_a_response_without_a_complete_block_has_no_program(response):
    assert extract_last_program(response) is None


def test_a_fence_inside_a_longer_fence_is_text():
    program = extract_last_program('````python\ns = """\n```\n"""\n````')
    assert program == 's = """\n```\n"""\n'
