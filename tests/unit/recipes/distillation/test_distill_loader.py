"""Settings of a distillation: what is wrong is named in one line before anything is loaded."""

import pytest
from typer.testing import CliRunner

from verl_pipeline.evaluation.eval_settings import BadSetting
from verl_pipeline.recipes.deepcoder import distill
from verl_pipeline.recipes.deepcoder.distillation.distill_loader import load_distillation


@pytest.fixture
def data(tmp_path):
    for name in ("train", "heldout"):
        (tmp_path / f"{name}.parquet").touch()
    return tmp_path


def load(data, *settings):
    return load_distillation(None, [f"data={data}", "student=s", "teacher.model=t", *settings])


def test_the_defaults_and_the_settings(data):
    config = load(data, "teacher.k=8", "selection.keep=diverse", "overrides=[trainer.seed=3]")
    assert (config.teacher.k, config.selection.keep) == (8, "diverse")
    assert config.method == "sft" and config.overrides == ["trainer.seed=3"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["teacher.model=''"], "teacher.model is not set"),
        (["student=''"], "student is not set"),
        (["method=dpo"], "method=dpo: must be one of sft, on_policy"),
        (["selection.keep=longest"], "selection.keep=longest: must be one of shortest, diverse"),
        (["on_policy.staleness=2"], "on_policy.staleness=2: must be one of 0, 1"),
        (["on_policy.loss=k9"], "on_policy.loss=k9: must be one of k1"),
        (["techer.k=2"], "techer: no such setting; did you mean teacher"),
        (["teacher.kk=2"], "teacher.kk: no such setting; did you mean k? Known: model, k"),
        (["teacher.k=0"], "teacher.k=0: must be at least 1"),
        (["teacher.k=many"], "teacher.k"),
        (["sft.lr=0"], "sft.lr=0.0: must be a number above 0"),
        (["on_policy.lr=nan"], "on_policy.lr=nan"),
        (["sft.batch_size=6"], "sft.batch_size=6: must be a multiple of devices=1 x"),
        (["teacher.engine.kind=server"], "teacher.engine.url: set it together with"),
        (
            ["method=on_policy", "teacher.engine.kind=server", "teacher.engine.url=http://x/v1"],
            "teacher.engine.kind=server: on-policy distillation needs",
        ),
    ],
)
def test_what_cannot_work_is_refused_by_name(data, settings, message):
    with pytest.raises(BadSetting) as caught:
        load(data, *settings)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_missing_data_are_named(tmp_path):
    with pytest.raises(BadSetting, match=r"no train.parquet there"):
        load(tmp_path)


def test_the_command_refuses_in_one_line_with_exit_code_2(tmp_path):
    result = CliRunner().invoke(distill_app(), ["--method", "sft", f"data={tmp_path}"])
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "error: student is not set: name the model that is trained: a folder, a hub name, or "
        "quickstart"
    ]


def distill_app():
    import typer

    app = typer.Typer()
    app.command()(distill.main)
    return app
