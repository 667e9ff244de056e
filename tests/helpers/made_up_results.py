"""A made-up output folder of an evaluation with a code task and a maths task."""

import json
import random
from collections import Counter
from pathlib import Path
from statistics import fmean, median
from typing import Any

from verl_pipeline.evaluation.caveats import Caveat
from verl_pipeline.evaluation.estimators import (
    compute_quantile,
    estimate_mean,
    estimate_pass_at_k,
    estimate_proportion,
    list_powers_up_to,
)

HOSTILE = (
    "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"
    "<!-- \u2028\u2029 \ud800 & {{data}} &lt;"
)
HOSTILE_ID = "HumanEval/<img src=x onerror='window.hacked = 1'>%&?#"
FAILURES = ("wrong_answer", "wrong_answer", "time_limit", "runtime_error", "no_code")
WEIGHTS = "3f" * 32


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_results(output: Path, problems: int = 12, samples: int = 4) -> dict[str, Any]:
    """Write ``results.json`` and the rows of both tasks below ``output``; return the results."""
    code = _make_task(
        output,
        "humaneval",
        "HumanEval",
        [f"HumanEval/{i}" for i in range(problems - 1)] + [HOSTILE_ID],
        samples,
    )
    code |= {
        "grader": "code",
        "tier": "rlimits",
        "caveats": [
            *code["caveats"],
            Caveat("degraded_tier", "ran in the <degraded> tier rlimits").as_dict(),
        ],
        "published": [
            _make_published(
                "Qwen2.5-Coder-1.5B-Instruct",
                70.7,
                "pass@1",
                "technical report",
                "greedy, one sample",
            ),
            _make_published(
                "DeepCoder-14B-Preview", 92.6, "pass@1", "DeepCoder blog post", "<b>HumanEval+</b>"
            ),
        ],
    }
    names = [f"2024-{part}-{i}" for part in ("I", "II") for i in range(1, problems // 2 + 1)]
    mathematics = _make_task(output, "aime2024", "AIME 2024", names, samples)
    mathematics |= {
        "grader": "math",
        "tier": "-",
        "rating": {
            "value": 1480.0,
            "low": 1390.0,
            "high": 1570.0,
            "contests": 21,
            "note": "21 of 24 contests",
        },
        "cons@k": _make_curve(mathematics, 0.04, tokens=mathematics["lengths"]["mean"]),
        "published": [
            _make_published(
                "DeepSeek-R1-Distill-Qwen-1.5B",
                28.9,
                "pass@1",
                "README of DeepSeek-R1",
                "64 samples",
            ),
            _make_published(
                "DeepSeek-R1-Distill-Qwen-1.5B",
                52.7,
                "cons@64",
                "README of DeepSeek-R1",
                "64 samples",
            ),
            _make_published("o1-mini", 1578, "rating", "CodeElo, table 1", ""),
        ],
    }
    mathematics["methods"] = [
        *({**row, "name": f"vote of {row['k']}"} for row in mathematics["cons@k"]),
        *(
            {**row, "name": f"best of {row['k']}", "value": row["value"] - 0.03}
            for row in _make_curve(mathematics, 0.02, tokens=mathematics["lengths"]["mean"])
        ),
        {
            **mathematics["pass@1"],
            "name": "one sample",
            "tokens_per_problem": mathematics["lengths"]["mean"],
        },
    ]
    results = {
        "schema": 2,
        "model": {
            "name": "Qwen/Qwen2.5-Coder-0.5B <i>",
            "weights": WEIGHTS,
            "path": "/models/qwen",
            "dtype": "bfloat16",
        },
        "engine": {"kind": "vllm", "tensor_parallel": 1, "max_model_len": 4096},
        "seed": 17,
        "versions": {"vllm": "0.27.1", "torch": "2.13.0", "transformers": "5.1.0", "verl": "0.9.1"},
        "machine": {"cpu": "AMD EPYC 7B13", "cores": 2, "memory_gb": 16},
        "started": "2026-03-01T10:00:00+00:00",
        "finished": "2026-03-01T11:42:10+00:00",
        "tasks": [code, mathematics],
    }
    (output / "results.json").write_text(json.dumps(results))
    return results


def _make_published(
    model: str, value: float, measure: str, source: str, note: str
) -> dict[str, Any]:
    return {"model": model, "value": value, "measure": measure, "source": source, "note": note}


def _make_curve(task: dict[str, Any], gain: float, tokens: float) -> list[dict[str, Any]]:
    """Make one row per k, each ``gain`` above the one before."""
    score = task["pass@1"]
    return [
        {
            "k": k,
            **{
                name: None if bound is None else min(1.0, bound + gain * i)
                for name, bound in score.items()
            },
            "tokens_per_problem": k * tokens,
        }
        for i, k in enumerate(list_powers_up_to(task["sampling"]["n"]))
    ]


def _make_task(output: Path, name: str, title: str, ids: list[str], n: int) -> dict[str, Any]:
    """Write a task's rows and return the part of its results that both graders share."""
    generator = random.Random(name)
    chances = {identity: generator.betavariate(0.8, 1.2) for identity in ids}
    tags = {
        identity: {
            "difficulty": ["hard", "medium", "easy"][int(3 * chance)],
            "month": f"2024-{1 + i % 6:02}",
        }
        for i, (identity, chance) in enumerate(chances.items())
    }
    samples, verdicts = [], []
    for identity in ids:
        for number in range(n):
            right = generator.random() < chances[identity]
            tokens = min(1024, int(generator.lognormvariate(5.5 if right else 6.0, 0.6)))
            response = (
                f"Sample {number} of {identity}:\n\n```python\ndef f(n):\n    return n * "
                f"{number}\n```\n" + HOSTILE
            )
            samples.append(
                {
                    "id": identity,
                    "sample": number,
                    "seed": generator.getrandbits(31),
                    "response": response,
                    "prompt_tokens": 140,
                    "tokens": tokens,
                    "finish": "length" if tokens == 1024 else "stop",
                    "mean_logprob": -generator.random(),
                }
            )
            verdict = "accepted" if right else generator.choice(FAILURES)
            verdicts.append(
                {
                    "id": identity,
                    "sample": number,
                    "verdict": verdict,
                    "reward": float(right),
                    "reason": "" if right else f"test 3: {verdict} {HOSTILE}",
                    "answer": None if name == "humaneval" else str(generator.randrange(1000)),
                }
            )
    folder = output / name
    prompt = (
        "Complete the function.\n\ndef f(n: int) -> int:\n    '''n times a constant, if n < 10 & n "
        "> 2.'''\n"
    )
    write_rows(
        folder / "problems.jsonl",
        [{"id": i, "prompt": f"{i}\n{prompt}", "tags": tags[i]} for i in ids],
    )
    write_rows(folder / "samples.jsonl", samples)
    write_rows(folder / "verdicts.jsonl", verdicts)
    right_by_id = {i: sum(row["reward"] for row in verdicts if row["id"] == i) for i in ids}
    lengths = [row["tokens"] for row in samples]

    def score(chosen: list[str]) -> dict[str, Any]:
        return estimate_proportion([right_by_id[i] / n for i in chosen]).as_dict()

    def score_within(limit: int) -> dict[str, Any]:
        correct = Counter(
            s["id"]
            for s, v in zip(samples, verdicts, strict=True)
            if v["reward"] and s["tokens"] <= limit
        )
        return estimate_proportion([correct[i] / n for i in ids]).as_dict()

    def make_bin(low: int, high: int) -> dict[str, int]:
        inside = [v for s, v in zip(samples, verdicts, strict=True) if low <= s["tokens"] < high]
        return {
            "low": low,
            "high": high,
            "count": len(inside),
            "accepted": sum(v["reward"] > 0 for v in inside),
        }

    return {
        "task": name,
        "title": title,
        "split": "test",
        "data": {
            "origin": f"/data/{name}.jsonl",
            "sha256": "ab" * 32,
            "problems": len(ids),
            "bad_rows": ["row 7: no tests <u>"],
            "seen_in_training": ids[:2],
        },
        "caveats": [
            Caveat("data_note", "graded as published: two problems have wrong tests").as_dict(),
            Caveat("data_note", "the <first> version of the data").as_dict(),
        ],
        "options": {"version": "v1"},
        "style": "chat",
        "sampling": {
            "n": n,
            "temperature": 0.6,
            "top_p": 0.95,
            "top_k": -1,
            "max_tokens": 1024,
            "seed": 17,
        },
        "counts": {
            "problems": len(ids),
            "samples": len(samples),
            "expected": len(samples),
            "failed": 0,
            "infrastructure": 0,
            "truncated": sum(row["finish"] == "length" for row in samples),
        },
        "pass@1": score(ids),
        "pass@k": [
            {
                "k": k,
                **estimate_proportion(
                    [estimate_pass_at_k(n, int(right_by_id[i]), k) for i in ids]
                ).as_dict(),
            }
            for k in list_powers_up_to(n)
        ],
        "cons@k": [],
        "budget": [{"tokens": limit, **score_within(limit)} for limit in (64, 128, 256, 512, 1024)],
        "methods": [],
        "lengths": {
            **{
                "mean": estimate_mean(lengths).value,
                "median": median(lengths),
                "p95": compute_quantile(lengths, 0.95),
            },
            "max": max(lengths),
            "histogram": [make_bin(low, low + 64) for low in range(0, 1088, 64)],
        },
        "verdicts": dict(Counter(row["verdict"] for row in verdicts)),
        "breakdown": {
            tag: [
                {"name": value, "problems": len(chosen), **score(chosen)}
                for value in sorted({row[tag] for row in tags.values()})
                if (chosen := [i for i in ids if tags[i][tag] == value])
            ]
            for tag in ("difficulty", "month")
        },
        "rating": None,
        "tokens": {"prompt": 140 * len(samples), "generated": int(fmean(lengths) * len(lengths))},
    }
