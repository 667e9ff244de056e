"""What grades a row in verl's schema, by the options and its data_source."""

import json

import pytest

from tests.helpers.verl_rows import make_row, write_parquet
from verl_pipeline.evaluation.data import DataFinder
from verl_pipeline.evaluation.eval_settings import BadSetting
from verl_pipeline.evaluation.row_graders import choose_grader
from verl_pipeline.evaluation.tasks.parquet import TASK
from verl_pipeline.grading.readers import READERS
from verl_pipeline.verl_adapter.rewards.scored_response import _EXECUTING_SOURCES

TESTS = json.dumps({"inputs": ["1\n"], "outputs": ["2\n"]})


def choose(data_source, grader="auto", source=""):
    chosen = choose_grader(grader, source, {}, "").choose(data_source)
    return chosen if chosen is None or isinstance(chosen, str) else str(chosen)


@pytest.mark.parametrize(
    ("data_source", "options", "chosen"),
    [
        ("openai/gsm8k", {}, "verl"),
        ("aime2025", {}, "verl"),
        ("taco", {}, "taco"),
        ("codecontests", {}, "code_contests"),
        ("codecontests", {"grader": "verl"}, "code_contests"),
        ("apps", {"grader": "verl"}, "apps"),
        ("openai/gsm8k", {"grader": "verl"}, "verl"),
        ("openai/gsm8k", {"grader": "math"}, None),
        ("numina_olympiads", {"grader": "math"}, None),
        ("mine", {"source": "taco"}, "taco"),
        ("mine", {"source": "taco", "grader": "code"}, "taco"),
        ("mine", {"grader": "pkg://my.rewards:score"}, "pkg://my.rewards:score"),
        ("mine", {"grader": "pkg://my.rewards"}, "pkg://my.rewards:compute_score"),
    ],
)
def test_the_grader_of_a_source(data_source, options, chosen):
    assert choose(data_source, **options) == chosen


@pytest.mark.parametrize(
    ("data_source", "grader", "cause"),
    [
        ("mine", "auto", "no reader, and verl's default scorer does not know it"),
        ("mine", "verl", "verl's default scorer does not know it"),
        ("livecodebench", "verl", "verl's default scorer does not know it"),
        ("openai/gsm8k", "code", "no reader"),
        ("numina_olympiads", "auto", "verl's scorer would evaluate responses as Python"),
        ("hiyouga/geometry3k", "verl", "verl's scorer would evaluate responses as Python"),
    ],
)
def test_a_source_without_a_grader_is_refused_with_the_fix(tmp_path, data_source, grader, cause):
    rows = [make_row(0, "taco", TESTS, name="good"), make_row(1, data_source, "5", name="bad")]
    if grader == "verl":
        rows[0]["data_source"] = "apps"
    data = write_parquet(tmp_path / "val.parquet", rows)
    with pytest.raises(BadSetting) as caught:
        TASK.load(DataFinder(), file=str(data), grader=grader)
    text = str(caught.value)
    assert text.startswith(f"data_source={data_source!r}: {cause}") and "\n" not in text
    assert "options.parquet.grader=math" in text and "options.parquet.source" in text


@pytest.mark.parametrize("grader", ["auto", "verl", "code", "pkg://my.rewards"])
@pytest.mark.parametrize("data_source", sorted(_EXECUTING_SOURCES))
def test_no_program_goes_to_verls_scorer(data_source, grader):
    try:
        chosen = choose(data_source, grader)
    except BadSetting:
        return
    assert chosen in READERS or chosen == "pkg://my.rewards:compute_score"


def test_each_row_of_a_mixed_file_has_its_own_grader(tmp_path):
    rows = [
        make_row(0, "taco", TESTS, name="program"),
        make_row(1, "openai/gsm8k", "5", name="number"),
    ]
    data = TASK.load(DataFinder(), file=str(write_parquet(tmp_path / "v.parquet", rows)))
    assert [item.grader for item in data.items] == ["code", "verl"] and not data.bad_rows
    assert data.items[1].reward.extra_info == rows[1]["extra_info"]
    assert data.notes == []
    rows[0]["data_source"] = "apps"
    path = write_parquet(tmp_path / "v.parquet", rows)
    notes = TASK.load(DataFinder(), file=str(path), grader="verl").notes
    assert any("apps: verl's scorer would run programs outside the sandbox" in n for n in notes)


def test_the_digest_of_the_data_depends_on_the_reward(tmp_path):
    data = write_parquet(tmp_path / "v.parquet", [make_row(0, "openai/gsm8k", "5")])
    function = tmp_path / "f.py"
    digests = set()
    for content, kwargs in [("a", {}), ("b", {}), ("b", {"x": 1})]:
        function.write_text(content)
        loaded = TASK.load(DataFinder(), file=str(data), grader=str(function), reward_kwargs=kwargs)
        digests.add(loaded.digest)
    digests.add(TASK.load(DataFinder(), file=str(data), grader="verl").digest)
    digests.add(TASK.load(DataFinder(), file=str(data), grader="math").digest)
    assert len(digests) == 5


@pytest.mark.parametrize(
    ("path", "kwargs", "kind"),
    [
        ("pkg://verl_pipeline.rewards.code", "{source: taco, workers: 4}", "taco"),
        ("pkg://verl_pipeline.rewards.math", "{}", None),
        ("null", "null", "verl"),
        ("my.py", "{}", None),
    ],
)
def test_a_runs_configuration_names_the_grader(tmp_path, path, kwargs, kind):
    (tmp_path / "my.py").write_text("")
    hydra = tmp_path / ".hydra"
    hydra.mkdir()
    (hydra / "hydra.yaml").write_text(f"hydra: {{runtime: {{cwd: {tmp_path}}}}}")
    (hydra / "config.yaml").write_text(
        f"reward: {{custom_reward_function: {{path: {path}, name: f, reward_kwargs: {kwargs}}}}}"
    )
    grader = choose_grader("auto", "", {}, str(hydra / "config.yaml"))
    chosen = grader.choose("openai/gsm8k")
    if path == "my.py":
        assert str(chosen) == f"{tmp_path}/my.py:f"
    else:
        assert (chosen if chosen is None or isinstance(chosen, str) else str(chosen)) == kind
