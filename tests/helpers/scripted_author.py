"""A model that writes problems and solves them, as a script behind a chat server.

Each request for a problem gets the next story of :data:`STORIES`; each request for a solution gets
the solution of the story that its statement names, right or wrong as the story says.
"""

import random
from dataclasses import dataclass

from tests.helpers.chat_server import Body, Reply, complete, refuse

GENERATOR = """
def generate_inputs(rng):
    return [[rng.randint(-9, 9) for _ in range(rng.randint(1, 8))], rng.randint(0, 5)]
"""


@dataclass(frozen=True)
class Story:
    """A problem as the model writes it.

    Attributes:
        mark: a word of its statement.
        reference: body of ``solve(values, limit)`` in the answer.
        solved: bodies of what four solvers write.
        tests: JSON of its tests.
        generator: as in the answer.
        statement: text before the mark.
    """

    mark: str
    reference: str
    solved: tuple[str, ...]
    tests: str
    generator: str = GENERATOR
    statement: str = "Given a list of integers and a limit, work out the figure called"


_SUM = "return sum(v for v in values if v > limit)"
_TWICE = "return 2 * sum(values) + limit"
_SUM_TESTS = '[{"input": [[1, 5], 2], "output": 5}, {"input": [[], 1], "output": 0}]'
STORIES = (
    Story("tally", _SUM, (_SUM, "return 0", _SUM, "return 1"), _SUM_TESTS),
    # The reference is wrong, but its own tests do not show it; the solvers agree on another answer.
    Story(
        "quibble",
        "return sum(v for v in values if v >= limit and len(values) < 6)",
        (_SUM,) * 4,
        '[{"input": [[1, 5], 2], "output": 5}]',
    ),
    Story("wrangle", "return 7", (_SUM,) * 4, _SUM_TESTS),
    Story("wobble", "return random.random()", (_SUM,) * 4, '[{"input": [[], 1], "output": 0}]'),
    Story("forever", _SUM, (_SUM,) * 4, _SUM_TESTS, "def generate_inputs(rng):\n    while 1: pass"),
    Story("double", _TWICE, (_TWICE,) * 4, '[{"input": [[1], 1], "output": 3}]'),
)


def make_program(body: str) -> str:
    return f"def solve(values, limit):\n    {body}\n"


def write_answer(story: Story) -> str:
    """The answer in which the model proposes a story."""
    return (
        f"### Problem\n{story.statement} {story.mark}.\n\n"
        f"### Solution\n```python\n{make_program(story.reference)}```\n\n"
        f"### Generator\n```python\n{story.generator}\n```\n\n"
        f"### Tests\n```json\n{story.tests}\n```\n"
    )


class ScriptedAuthor:
    """Replies to requests; ``failing`` is the share of them that fail, at random."""

    def __init__(self, stories=STORIES, failing: float = 0.0):
        self._stories, self._failing = stories, failing
        self._chance = random.Random(1)
        self._proposals: dict[str, Story] = {}
        self._solved: dict[str, int] = {}

    def __call__(self, body: Body) -> Reply:
        text = body["messages"][-1]["content"]
        is_probe = "1 + 1" in text  # a server that refuses it is no server to begin with
        if not is_probe and self._chance.random() < self._failing:
            return refuse("planted", 500)
        if "Write a new programming problem" in text:
            if text not in self._proposals:
                self._proposals[text] = self._stories[len(self._proposals) % len(self._stories)]
            return complete(write_answer(self._proposals[text]))
        story = next((one for one in self._stories if f"called {one.mark}." in text), None)
        if story is None:
            return complete("2")
        number = self._solved.get(story.mark, 0)
        self._solved[story.mark] = number + 1
        program = make_program(story.solved[number % len(story.solved)])
        return complete(f"Here it is:\n```python\n{program}```")
