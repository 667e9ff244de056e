"""The report of a demonstration: numbers of the files, with correctly clustered intervals."""

import pytest

from verl_pipeline.evaluation.estimators import estimate_proportion
from verl_pipeline.outputs.files import write_json, write_lines
from verl_pipeline.recipes.deepcoder.demo_report import (
    build_stage_rows,
    summarize_evaluation,
    summarize_training,
    write_demo_report,
)


def write_evaluation(folder, rewards, tokens, n=2):
    """Write an evaluation with n samples per problem.

    Args:
        folder: the evaluation's folder, which is returned.
        rewards: rewards of the samples of each problem.
        tokens: lengths of the samples of each problem.
        n: samples per problem.
    """
    rows, verdicts = [], []
    for problem, (scores, lengths) in enumerate(zip(rewards, tokens, strict=True)):
        for sample in range(n):
            key = {"id": f"p{problem}", "sample": sample}
            finish = "length" if lengths[sample] == 128 else "stop"
            rows.append(
                {
                    **key,
                    "tokens": lengths[sample],
                    "finish": finish,
                    "response": "",
                    "prompt_tokens": 1,
                }
            )
            verdicts.append({**key, "reward": scores[sample], "verdict": "accepted"})
    (folder / "parquet").mkdir(parents=True)
    write_lines(folder / "parquet" / "samples.jsonl", rows)
    write_lines(folder / "parquet" / "verdicts.jsonl", verdicts)
    task = {
        "task": "parquet",
        "data": {"sha256": "x", "problems": len(rewards), "origin": "f"},
        "counts": {"samples": len(rows), "failed": 0, "infrastructure": 0, "truncated": 0},
        "pass@1": estimate_proportion([sum(scores) / n for scores in rewards], n).as_dict(),
        "lengths": {"mean": 50.0},
        "sampling": {"n": n, "max_tokens": 128},
        "style": "chat",
        "caveats": [],
        "tier": "namespaces",
        "title": "Held-out problems",
        "published": [],
        "options": {},
    }
    task["sampling"] |= {"temperature": 1.0, "top_p": 1.0}
    model = {"name": "m", "weights": None}
    results = {"schema": 2, "model": model, "engine": {}, "tasks": [task]}
    write_json(folder / "results.json", results)
    return folder


def write_stage(folder, truncated_shares):
    folder.mkdir(parents=True)
    rows = []
    for step, share in enumerate(truncated_shares, 1):
        values = {"trajectories": 24.0, "truncated_share": share, "reward_mean": 0.25}
        data = {f"filters/before/{key}": value for key, value in values.items()}
        data |= {
            "filters/after/trajectories": 24.0 * (1 - share),
            "filters/skipped_update": float(share == 1),
        }
        rows.append({"step": step, "data": data})
    write_lines(folder / "metrics.jsonl", rows)


def test_the_summary_of_training_counts_every_step_and_clusters_by_step(tmp_path):
    write_stage(tmp_path / "short", [0.5, 1.0, 0.0])
    summary = summarize_training(tmp_path / "short" / "metrics.jsonl")
    assert (summary["steps"], summary["trajectories"], summary["trained_on"]) == (3, 72, 36)
    assert summary["skipped_updates"] == 1 and summary["reward"]["value"] == 0.25
    assert summary["truncated"] == estimate_proportion([0.5, 1.0, 0.0], 24).as_dict()


def test_samples_are_beyond_the_limit_if_they_are_longer_or_truncated(tmp_path):
    folder = write_evaluation(
        tmp_path / "e", [[1, 0], [0, 0], [1, 1]], [[10, 65], [128, 128], [64, 5]]
    )
    summary = summarize_evaluation(folder, 64)
    assert summary["problems"] == 3 and summary["samples"] == 6
    assert summary["beyond_limit"] == estimate_proportion([0.5, 1.0, 0.0], 2).as_dict()
    assert summarize_evaluation(folder, 128)["beyond_limit"]["value"] == pytest.approx(1 / 3)


def test_arms_are_compared_problem_by_problem(tmp_path):
    for arm in ("overlong", "unfiltered"):
        write_stage(tmp_path / arm / "long", [0.5])
    base = write_evaluation(tmp_path / "base", [[0, 0], [0, 1], [0, 0]], [[9, 9]] * 3)
    ends = {
        "overlong": write_evaluation(
            tmp_path / "overlong/eval/long/step_5", [[1, 1], [0, 1], [0, 1]], [[9, 9]] * 3
        ),
        "unfiltered": write_evaluation(
            tmp_path / "unfiltered/eval/long/step_5", [[1, 0], [0, 0], [0, 1]], [[9, 9]] * 3
        ),
    }
    (tmp_path / "data").mkdir()
    write_json(tmp_path / "data" / "report.json", {"outputs": {}})
    arms = {
        arm: build_stage_rows(tmp_path / arm, {"long": 128}, base, {"long": end})
        for arm, end in ends.items()
    }
    report = write_demo_report(tmp_path, base, arms)
    assert arms["overlong"][0]["gain"]["value"] == pytest.approx(0.5)
    (between,) = report["between"]
    assert (between["arm"], between["over"]) == ("overlong", "unfiltered")
    assert between["value"] == pytest.approx(1 / 3) and (between["better"], between["worse"]) == (
        2,
        0,
    )
    text = (tmp_path / "report.md").read_text()
    assert (
        "overlong over unfiltered: +33.3" in text and "| long | 128 | 1, 24, 12 | 50.0 % |" in text
    )
