"""Settings of a generation: merged, checked, and passed on to the preparation."""

import pytest

from verl_pipeline.evaluation.eval_settings import BadSetting
from verl_pipeline.recipes.deepcoder.generation.generation_loader import load_generation


def test_defaults_and_the_preparation_that_follows():
    config, preparation = load_generation(None, ["output=here", "prepare.length.max_tokens=99"])

    assert config.methods == ["codeio", "families"] and config.output == preparation.output
    assert list(preparation.sources) == ["codeio", "families"]
    assert preparation.sources["codeio"].file == "here/rows/codeio.jsonl"
    assert preparation.length.max_tokens == 99
    assert "humaneval" in preparation.contamination.tasks


def test_a_file_may_have_settings_of_both(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("seed: 3\nmethods: [codeio]\nprepare:\n  tests: {min: 7}\n")

    config, preparation = load_generation(str(path), ["seed=4"])

    assert (config.seed, preparation.seed, preparation.tests.min) == (4, 4, 7)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["method=[codeio]"], r"method: no such setting; did you mean methods\?"),
        (["codeio.limits=3"], r"codeio.limits: no such setting; did you mean limit\?"),
        (["methods=[codeoi]"], r"methods: 'codeoi' is not known; did you mean codeio\?"),
        (["methods=[]"], "methods: empty"),
        (["methods=[codeio,codeio]"], "each may be named once"),
        (["methods=[model]"], "model.name: not set"),
        (["methods=[model]", "model.name=m"], "model.engine.url: not set"),
        (["methods=[strengthen]"], "strengthen.sources: no data source"),
        (["strengthen.sources={mbp: {}}"], r"strengthen.sources.mbp: no such source"),
        (["model.ways=[evolv]"], r"did you mean evolve\?"),
        (["codeio.form=file"], "codeio.form='file': must be one of mixed, call, stdin"),
        (["codeio.limit=0"], "codeio.limit=0: must be at least 1"),
        (["tests.keep=3"], "tests.keep=3: must be at least 12"),
        (["model.agree=5"], "model.solvers=4: must be at least 5"),
        (["time.mutant_s=0.6"], "time.mutant_s=0.6: must be at least 1"),
        (["mutation.min_score=.nan"], "mutation.min_score=nan: must be from 0 to 1"),
        (["tests.draws=many"], "tests.draws"),
        (["data="], "data= is empty"),
        (["prepare.lenght.max_tokens=3"], r"did you mean length\?"),
        (["prepare.seed=3"], "prepare.seed: the generation sets it"),
        (["prepare.sources={mbpp: {}}"], "prepare.sources: the generation sets it"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(settings, message):
    with pytest.raises(BadSetting, match=message):
        load_generation(None, settings)


def test_a_file_that_is_missing_or_no_mapping_is_refused(tmp_path):
    with pytest.raises(BadSetting, match="--config"):
        load_generation(str(tmp_path / "none.yaml"), [])
    path = tmp_path / "list.yaml"
    path.write_text("- 1\n- 2\n")
    with pytest.raises(BadSetting):
        load_generation(str(path), [])
