"""Whatever a user writes as settings is accepted, or refused in one line that names it."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from verl_pipeline.evaluation.eval_settings import BadSetting, EvalConfig
from verl_pipeline.evaluation.settings_loader import BOUNDS, SHARES, load_eval_config

KEYS = [
    *BOUNDS,
    *SHARES,
    *("model", "tasks", "output", "data", "hub", "style", "system", "purpose", "train_data"),
    *("scorer", "options", "options.small", "options.small.x", "sampling", "engine", "refine"),
    *("engine.kind", "engine.url", "engine.may_drop", "engine.dtype", "engine.rope_parameters"),
    *("engine.chat_template_kwargs", "engine.chat_template_kwargs.a.b", "grader.tier", "grader"),
    *("", ".", "a..b", "sampling.", "tasks[0]", "limit.x", "Model", "sampling.n.m", "é"),
]
VALUES = [
    *("", "null", "nan", "inf", "-inf", "-1", "0", "1e999", "1.5", "9" * 400, "true", "x"),
    *("[]", "[1", "[null]", "[[a]]", "{}", "{a: 1}", "{a: {b: [1]}}", "{1: 2}", "{a", "'", '"'),
    *("${x}", "${model}", "${oc.env:HOME}", "???", "!!python/object:os.system", "&a *a", "a: b"),
    *("\t", "\x00", "é", "{rope_type: 1, factor: x}", "[temperature]", "%", "[bold]", "=", "a=b"),
]
BASE = ["model=empty", "tasks=[small]"]


def load(arguments):
    """Return the settings, or the one line of the refusal."""
    try:
        return load_eval_config(None, arguments)
    except BadSetting as error:
        assert "\n" not in str(error) and str(error).strip()
        assert "omegaconf" not in str(error).lower()
        return str(error)


@pytest.mark.parametrize("examples", [80, pytest.param(1000, marks=pytest.mark.slow)])
def test_any_setting_is_accepted_or_refused_in_one_line(examples):
    @settings(deadline=None, max_examples=examples)
    @example("limit", "9" * 400)
    @example("sampling.top_p", "9" * 400)
    @example("tasks", "[[a]]")
    @example("tasks[0]", "a: b")
    @example("limit", "${x}")
    @example("limit", "0\r\r0")
    @example("options", "${model}")
    @given(st.sampled_from(KEYS), st.sampled_from(VALUES) | st.text(max_size=8))
    def check(key, value):
        loaded = load([*BASE, f"{key}={value}"])
        assert isinstance(loaded, EvalConfig | str)

    check()


@pytest.mark.parametrize("name", [*BOUNDS, *SHARES])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-5", "1e999"])
def test_no_number_out_of_range_is_accepted(name, value):
    refusal = load([*BASE, f"{name}={value}"])
    assert isinstance(refusal, str) and refusal.startswith(f"{name}=")


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_settings_file_is_accepted_or_refused_in_one_line(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "settings.yaml"
    path.write_bytes(content)
    try:
        load_eval_config(str(path), BASE)
    except BadSetting as error:
        assert "\n" not in str(error)
