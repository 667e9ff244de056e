"""The report of a scaled-down run: what the files say, with intervals clustered as they must be."""

import pytest

from recipes.deepcoder import demo_report as report
from verl_pipeline.evaluation.estimators import proportion_interval
from verl_pipeline.evaluation.store import write_json, write_lines


def evaluation(folder, right, tokens, n=2):
    """An evaluation of as many problems as ``right`` and ``tokens`` have entries, n samples each."""
    rows, verdicts = [], []
    for problem, (scores, lengths) in enumerate(zip(right, tokens, strict=True)):
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
        "data": {"sha256": "x", "problems": len(right), "origin": "f"},
        "counts": {"samples": len(rows), "failed": 0, "infrastructure": 0, "truncated": 0},
        "pass@1": proportion_interval([sum(scores) / n for scores in right], n).as_dict(),
        "lengths": {"mean": 50.0},
        "sampling": {"n": n, "max_tokens": 128},
        "style": "chat",
        "tier": "namespaces",
    }
    write_json(
        folder / "results.json", {"schema": 1, "engine": "vllm", "warnings": [], "tasks": [task]}
    )
    return folder


def stage(folder, shares):
    (folder).mkdir(parents=True)
    rows = []
    for step, share in enumerate(shares, 1):
        side = {"trajectories": 24.0, "truncated_share": share, "reward_mean": 0.25}
        data = {f"filters/before/{key}": value for key, value in side.items()}
        data |= {
            "filters/after/trajectories": 24.0 * (1 - share),
            "filters/skipped_update": float(share == 1),
        }
        rows.append({"step": step, "data": data})
    write_lines(folder / "metrics.jsonl", rows)


def test_training_counts_every_step_and_clusters_by_step(tmp_path):
    stage(tmp_path / "short", [0.5, 1.0, 0.0])
    found = report.training(tmp_path / "short" / "metrics.jsonl")
    assert (found["steps"], found["trajectories"], found["trained_on"]) == (3, 72, 36)
    assert found["skipped_updates"] == 1 and found["reward"]["value"] == 0.25
    assert found["truncated"] == proportion_interval([0.5, 1.0, 0.0], 24).as_dict()


def test_held_out_is_beyond_the_limit_by_tokens_or_cut_off(tmp_path):
    folder = evaluation(tmp_path / "e", [[1, 0], [0, 0], [1, 1]], [[10, 65], [128, 128], [64, 5]])
    found = report.held_out(folder, 64)
    assert found["problems"] == 3 and found["samples"] == 6
    assert found["beyond_limit"] == proportion_interval([0.5, 1.0, 0.0], 2).as_dict()
    assert report.held_out(folder, 128)["beyond_limit"]["value"] == pytest.approx(1 / 3)


def test_arms_are_compared_problem_by_problem(tmp_path):
    for arm in ("overlong", "unfiltered"):
        stage(tmp_path / arm / "long", [0.5])
    base = evaluation(tmp_path / "base", [[0, 0], [0, 1], [0, 0]], [[9, 9]] * 3)
    ends = {
        "overlong": evaluation(
            tmp_path / "overlong/eval/long/step_5", [[1, 1], [0, 1], [0, 1]], [[9, 9]] * 3
        ),
        "unfiltered": evaluation(
            tmp_path / "unfiltered/eval/long/step_5", [[1, 0], [0, 0], [0, 1]], [[9, 9]] * 3
        ),
    }
    (tmp_path / "data").mkdir()
    write_json(tmp_path / "data" / "report.json", {"outputs": {}})
    arms = {
        arm: report.rows_of(tmp_path / arm, {"long": 128}, base, {"long": end})
        for arm, end in ends.items()
    }
    found = report.write_report(tmp_path, base, arms)
    assert arms["overlong"][0]["gain"]["value"] == pytest.approx(0.5)
    (between,) = found["between"]
    assert (between["arm"], between["over"]) == ("overlong", "unfiltered")
    assert between["value"] == pytest.approx(1 / 3) and (between["better"], between["worse"]) == (
        2,
        0,
    )
    text = (tmp_path / "report.md").read_text()
    assert (
        "overlong over unfiltered: +33.3" in text and "| long | 128 | 1, 24, 12 | 50.0% |" in text
    )
