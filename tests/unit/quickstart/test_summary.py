"""The quickstart's tables."""

import json

from rich.console import Console

from verl_pipeline.quickstart.summary import make_accuracy_table, make_pool_table, read_scores


def render(table):
    console = Console(width=120, record=True, file=open("/dev/null", "w"))
    console.print(table)
    return console.export_text()


def test_the_tables_have_sample_counts_and_shares_that_add_up(tmp_path):
    for step, score in ((0, 0.0), (5, 1.0)):
        rows = [
            {"input": f"p{i}", "score": score if i else 0.5} for i in range(3) for _ in range(8)
        ]
        (tmp_path / f"{step}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_scores(tmp_path / "0.jsonl") == {"p0": [0.5] * 8, "p1": [0.0] * 8, "p2": [0.0] * 8}
    shown = render(make_accuracy_table(tmp_path, 5))
    assert "24" in shown and "0.167" in shown and "+0.667" in shown
    metrics = {
        step: {
            "timing_s/step": 10.0,
            "pipeline/timing_s/wait_rollout": 2.0,
            "timing_s/update_weights": 1.0,
            "timing_s/update_actor": 6.0,
            "pipeline/batch/generating_s": 4.0,
        }
        for step in (1, 2, 3, 4)
    }
    metrics[1]["pipeline/batch/generating_s"] = metrics[2]["pipeline/batch/generating_s"] = (
        9.0  # sampled during steps 0 and 1
    )
    shown = render(make_pool_table({0: {}, **metrics}))
    assert "2 steps in 20.0 s" in shown
    for share in ("20 %", "10 %", "60 %", "40 %", "50 %"):
        assert share in shown


def test_responses_may_contain_any_line_separator(tmp_path):
    """verl writes them unescaped."""
    row = {"input": "p\u2028\x85\x0c", "output": "a\u2029b", "score": 1}
    text = json.dumps(row, ensure_ascii=False)
    (tmp_path / "0.jsonl").write_text(f"{text}\n{text}\n", encoding="utf-8")
    assert read_scores(tmp_path / "0.jsonl") == {row["input"]: [1.0, 1.0]}
