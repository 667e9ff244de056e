"""What tasks share: reading rows without losing any in silence, and the words around a problem.

The instructions are those with which the published scores were made, word for word: scores depend
on them.
"""

from collections.abc import Callable, Iterable

from verl_pipeline.evaluation.data import BadData, Row
from verl_pipeline.evaluation.task import Item, Loaded, Sampling
from verl_pipeline.grading.readers import BadRow

# EvalPlus 0.3 (evalplus/codegen.py): instruction, and the beginning of the answer for models that
# do not think.
SELF_CONTAINED = (
    "Please provide a self-contained Python script that solves the following problem in a markdown "
    "code block:"
)
SELF_CONTAINED_PREFILL = (
    "Below is a Python script with a self-contained function that solves the problem and passes "
    "corresponding tests:\n```python\n"
)
# LiveCodeBench (lcb_runner/prompts/code_generation.py), as rLLM puts it into one message without a
# system prompt.
EXPERT = (
    "You are an expert Python programmer. You will be given a question (problem specification) and "
    "will generate a correct Python program that matches the specification and passes all "
    "tests.\n\n"
)
FROM_STDIN = (
    "### Format: Read the inputs from stdin solve the problem and write the answer to stdout (do "
    "not directly test on the sample inputs). Enclose your code within delimiters as follows. "
    "Ensure that when the python program runs, it reads the inputs, runs the algorithm and writes "
    "output to STDOUT.\n```python\n# YOUR CODE HERE\n```\n\n"
)
WITH_STARTER = (
    "### Format: You will use the following starter code to write the solution to the problem and "
    "enclose your code within delimiters.\n```python\n{starter}\n```\n\n"
)
USE_BACKTICKS = "### Answer: (use the provided format with backticks)\n\n"
CODE_PREFILL = "```python\n"
# DeepSeek-R1 (README, usage recommendations).
BOXED = "\n\nPlease reason step by step, and put your final answer within \\boxed{}."

# DeepSeek-R1's and DeepCoder's evaluations: temperature 0.6, top_p 0.95 (README of R1; scripts/eval
# of rLLM).
REASONING = Sampling(n=1, temperature=0.6, top_p=0.95, max_tokens=32768)


def fenced(program: str) -> str:
    """A response that consists of a program."""
    return f"```python\n{program.rstrip()}\n```"


def read_all(rows: Iterable[Row], origin: str, read: Callable[[int, Row], Item | None]) -> Loaded:
    """Items of all rows; ``read`` takes a row's number and the row, and returns None for what is
    not asked for.

    Raises:
        BadData: not a single row can be read, or two problems have one id.
    """
    items: list[Item] = []
    bad: list[str] = []
    for number, row in enumerate(rows):
        try:
            item = read(number, row)
        except BadRow as error:
            bad.append(f"row {number}: {error}")
        except KeyError as error:
            bad.append(f"row {number}: no {error}; it has {', '.join(row)}")
        except (
            ValueError,
            TypeError,
            AttributeError,
            IndexError,
            SyntaxError,
        ) as error:  # of another form than expected
            bad.append(f"row {number}: {type(error).__name__}: {error}")
        else:
            if item is not None:
                items.append(item)
    if not items:
        raise BadData(
            f"{origin}: no problem could be read" + (f"; the first: {bad[0]}" if bad else "")
        )
    return Loaded(items, origin, bad)
