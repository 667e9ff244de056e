"""Problems whose expected answer cannot be read are refused by name, before anything is sampled."""

import pyarrow as pa
import pyarrow.parquet
import pytest
from rich.console import Console

from verl_pipeline.evaluation import graders
from verl_pipeline.evaluation.data import BadData
from verl_pipeline.evaluation.engines.preset_engine import PresetEngine
from verl_pipeline.evaluation.eval_settings import BadSetting
from verl_pipeline.evaluation.evaluation_run import run_evaluation
from verl_pipeline.evaluation.settings_loader import load_eval_config
from verl_pipeline.evaluation.task_plan import plan_tasks

pytest.importorskip("math_verify")
pytestmark = pytest.mark.timeout(180)


class RecordingEngine(PresetEngine):
    """Answers correctly and records the ids that it is asked for."""

    def __init__(self):
        super().__init__("canonical")
        self.ids = []

    def generate(self, requests, sampling):
        self.ids += [request.id for request in requests]
        return super().generate(requests, sampling)


def make_config(folder, answers):
    rows = [
        {
            "data_source": "mine",
            "prompt": [{"role": "user", "content": f"Question {name}?"}],
            "reward_model": {"style": "rule", "ground_truth": answer},
            "extra_info": {"index": 0, "name": name},
        }
        for name, answer in answers.items()
    ]
    path = folder / "val.parquet"
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
    return load_eval_config(
        None,
        [
            "model=canonical",
            "sampling.n=1",
            "tasks=[parquet]",
            f"options.parquet.file={path}",
            "options.parquet.grader=math",
            f"output={folder / 'out'}",
        ],
    )


def test_a_row_with_an_unreadable_answer_is_listed_and_not_sampled(tmp_path):
    config = make_config(
        tmp_path, {"good": "0.\\overline{3}", "broken": "\\frac{1}{", "two": "1 2"}
    )
    engine = RecordingEngine()
    results = run_evaluation(config, Console(quiet=True), engine)
    [task] = results["tasks"]
    assert engine.ids == ["good"] and task["pass@1"]["value"] == 1.0
    assert task["counts"]["problems"] == 1 and task["counts"]["infrastructure"] == 0
    broken, two = task["data"]["bad_rows"]
    assert broken.startswith("broken: the expected answer cannot be read")
    assert two.startswith("two: ") and "two numbers side by side" in two
    assert any("2 rows of the data could not be read" in row["text"] for row in task["caveats"])


def test_data_without_a_readable_answer_is_refused(tmp_path):
    with pytest.raises(BadData, match="no expected answer can be read; the first: broken"):
        plan_tasks(make_config(tmp_path, {"broken": "\\frac{1}{"}))


def test_a_machine_that_cannot_compare_is_found_before_generation(tmp_path, monkeypatch):
    from verl_pipeline.rewards import math

    monkeypatch.setattr(math, "_VERIFIER_COMMAND", ["/nowhere/python"])
    math._get_thread_pool.cache_clear()
    try:
        with pytest.raises(BadSetting, match="math-verify"):
            plan_tasks(make_config(tmp_path, {"good": "5"}))
    finally:
        math._get_thread_pool.cache_clear()


@pytest.mark.parametrize(
    ("answer", "key"),
    [
        ("0073", "73"),
        ("-0", "0"),
        ("+1,000.", "1000"),
        ("9" * 5000, "9" * 5000),
        ("\\frac{1}{2}", "\\frac{1}{2}"),
    ],
)
def test_the_key_by_which_samples_vote(answer, key):
    assert graders.make_number_key(answer) == key
