"""An evaluation task: Roman numerals, graded by the maths reward."""

from verl_pipeline.evaluation.task import (
    SamplingParameters,
    Task,
    TaskData,
    TaskItem,
    make_conversation,
)

NUMERALS = {1000: "M", 900: "CM", 500: "D", 400: "CD", 100: "C", 90: "XC", 50: "L", 40: "XL"}
NUMERALS |= {10: "X", 9: "IX", 5: "V", 4: "IV", 1: "I"}


def write_roman(number: int) -> str:
    text = ""
    for value, numeral in NUMERALS.items():
        text += number // value * numeral
        number %= value
    return text


def load_problems(finder, count: int = 50) -> TaskData:
    items = [
        TaskItem(
            id=str(number),
            messages=make_conversation(
                f"Which number is {write_roman(number)}? Put it in \\boxed{{}}."
            ),
            answer=str(number),
            canonical=f"\\boxed{{{number}}}",
            tags={"digits": str(len(str(number)))},
        )
        for number in range(7, 7 + 37 * count, 37)
    ]
    return TaskData(items, origin="made up")


TASK = Task(
    name="roman",
    title="Roman numerals",
    load=load_problems,
    sampling=SamplingParameters(n=4, max_tokens=512),
    options={"count": 50},
)
