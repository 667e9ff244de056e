"""The program that is extracted from a response."""

import pytest

from verl_pipeline.grading.program_extraction import extract_answer_text, extract_last_program

CODE = "print(1)\n"
BLOCK = f"```python\n{CODE}```"


@pytest.mark.parametrize(
    "response",
    [
        BLOCK,
        "```\nprint(1)\n```\n",
        "text\n```Python 3\nprint(1)\n```\ntext",
        "```python\r\nprint(1)\r\n```\r\n",
        "~~~py\nprint(1)\n~~~",
        "```py\nprint(0)\n```\nBetter:\n```py\nprint(1)\n```",
        "<think>```py\nprint(0)\n```</think>\n```py\nprint(1)\n```",
        "thought without a start</think>```py\n```\n\n```py\nprint(1)\n```",
        "<answer>\n```python\nprint(1)\n```\n</answer>",
        "<div>```</div>\n\n```python\nprint(1)\n```",
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
        "```python\nprint(1)\n``` is the answer",  # not a closing fence
        "````python\nprint(1)\n```",  # shorter than the opening fence
        "```python\nprint(1)\n~~~",
        "> ```python\n> print(1)\n\nThe quote has ended, but not the block.",
        "- ```python\n  print(1)",
    ],
)
def test_a_response_without_a_complete_block_has_no_program(response):
    assert extract_last_program(response) is None


def test_a_fence_inside_a_longer_fence_is_text():
    program = extract_last_program('````python\ns = """\n```\n"""\n````')
    assert program == 's = """\n```\n"""\n'


@pytest.mark.parametrize(
    "response",
    [
        "  ```python\n  if x:\n      y()\n  ```",
        "   ```python\n   if x:\n       y()\n```",
        "```python\nif x:\n    y()\n   ```",
        "1. So:\n   ```python\n   if x:\n       y()\n   ```",
        "1. So:\n\n    ```python\n    if x:\n        y()\n    ```\n2. Done.",
        "10. So:\n\n    ```python\n    if x:\n        y()\n    ```",
        "- ```python\n  if x:\n      y()\n  ```",
        "* a\n  * b\n    ```python\n    if x:\n        y()\n    ```\n",
        "-\tSo:\n\n\t```python\n\tif x:\n\t    y()\n\t```",
        "> ```python\n> if x:\n>     y()\n> ```",
        "> 1. So:\n>    ```python\n>    if x:\n>        y()\n>    ```\n",
        # Code that is indented less than its list item.
        "1. So:\n   ```python\nif x:\n    y()\n   ```",
        "1. So:\n   ```python\n   if x:\n       y()\n```",
        "   ```python\nif x:\n    y()\n   ```",
        "+ + + + + + + + + + + + + + +\n\n```python\nif x:\n    y()\n```",
    ],
)
def test_the_indentation_of_fence_list_and_quote_is_taken_off(response):
    assert extract_last_program(response) == "if x:\n    y()\n"


def test_indentation_of_the_program_itself_stays():
    assert extract_last_program("```python\n  a\n\tb\n```") == "  a\n\tb\n"
    assert extract_last_program(" ```python\na\n  b\n ```") == "a\n  b\n"
    assert extract_last_program(" ```python\n a\n   b\nc\n ```") == "a\n  b\nc\n"


@pytest.mark.parametrize("label", ["text", "bash", "output", "json", "diff", "console", "cpp", "c"])
def test_a_block_that_says_it_is_no_python_is_the_program_only_if_it_is_alone(label):
    other = f"```{label}\nprint(2)\n```"
    assert extract_last_program(f"{BLOCK}\nExample:\n\n{other}") == CODE
    assert extract_last_program(f"```\n{CODE}```\n{other}\n{other}") == CODE
    assert extract_last_program(f"{other}\n{BLOCK}") == CODE
    assert extract_last_program(other) == "print(2)\n"


def test_a_block_that_says_nothing_is_the_program_only_if_none_says_that_it_is_python():
    unlabelled = "```\nprint(2)\n```"
    assert extract_last_program(f"{BLOCK}\nIt prints:\n\n{unlabelled}") == CODE
    assert extract_last_program(f"{unlabelled}\nor\n\n{unlabelled}") == "print(2)\n"
    assert extract_last_program(f"{unlabelled}\n{BLOCK}\n{unlabelled}\n{BLOCK[:-3]}```") == CODE
    # A cut-off block may have been the program, whatever it says.
    assert extract_last_program(f"{BLOCK}\nIt prints:\n\n```\n1") is None


@pytest.mark.parametrize(
    "info",
    [
        "py",
        "python3",
        " Python",
        "PYTHON 3.11",
        "python3.11",
        'python title="x.txt"',
        "{.python .numberLines}",
        "python:solution.txt",
        "solution.py",
        "pypy3",
    ],
)
def test_labels_that_say_python(info):
    assert extract_last_program(f"```{info}\n{CODE}```\n```text\n2\n```") == CODE


@pytest.mark.parametrize(
    "end",
    [
        "<|im_end|>",
        "<|endoftext|>\n",
        " <|eot_id|>",
        "</s>",
        "<｜end▁of▁sentence｜>",
        "<end_of_turn>\n",
        "<eos>",
        "\n<|im_end|>\n<|endoftext|><|endoftext|>",
        "   \t",
    ],
)
def test_tokens_that_end_a_sequence_are_left_out(end):
    assert extract_last_program(BLOCK + end) == CODE
    assert extract_answer_text(f"The answer is 3.{end}") == "The answer is 3."


@pytest.mark.parametrize(
    "response",
    [
        f"I use no <think> tag.\n{BLOCK}",
        f"{BLOCK}\nA model would write `<think>` and `</think>` around its reasoning.",
        f"<think>\nIt begins with `<think>`.\n</think>\n{BLOCK}\nI left <think> out.",
        f"<think>\n```py\nno = fence\n</think>\n{BLOCK}",  # the draft's block stays open
        f"<think>\n```py\nno = fence\nThat is it.</think>So:\n\n{BLOCK}",
        f"<think>\n```py\nno = fence\nThat is it.</think>{BLOCK}",
        f'<think>It prints "1"</think>One:\n{BLOCK}',
        f"<think>a</think>\n<think>b</think>\n{BLOCK}",
        f"One.\n<think>\n```py\nprint(0)\n```\n</think>\n{BLOCK}",
    ],
)
def test_a_mention_of_reasoning_is_none(response):
    assert extract_last_program(response) == CODE


@pytest.mark.parametrize(
    "program",
    [
        'print("</think>")\n',
        "print('<think>', '</think>')\n",
        're.sub(r"<think>.*?</think>", "", s)\n',
        "# what is before </think>\nx = 1\n",
        '"""\n<think>\n"""\n',
        "x = '<think>'\n",
    ],
)
@pytest.mark.parametrize("reasoning", ["", "<think>\na\n</think>\n", "<think>a</think>"])
def test_a_program_may_contain_the_tags(program, reasoning):
    assert extract_last_program(f"{reasoning}```python\n{program}```") == program
    assert extract_last_program(f"{reasoning}```python\n{program}```\n{BLOCK}") == CODE


@pytest.mark.parametrize(
    "response",
    [
        f"<think>I shall end with `</think>`. A draft:\n{BLOCK}\nNow",
        f"<think>I shall write print('</think>'):\n{BLOCK}\nNow",
        f"<think>\n{BLOCK}\n```py\n# before </think>\n```\nNow",
        f"{BLOCK}\n</think>\nI do not know.",
        f"<think>a</think>{BLOCK}\n<think>\nNo",
        f"<think>a</think>\n<think>A draft:\n{BLOCK}",
    ],
)
def test_a_draft_is_no_answer(response):
    assert extract_last_program(response) is None
