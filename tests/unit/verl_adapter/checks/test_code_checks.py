"""The user's code is imported before a model loads, and whatever it does ends in one line."""

import os

import pytest

from tests.helpers.thinned import thin_out_rows
from verl_pipeline.trainer.pipeline_config import ROLLOUT
from verl_pipeline.verl_adapter.checks.check_list import CODE, list_checks
from verl_pipeline.verl_adapter.checks.check_report import run_checks

REWARD = "reward.custom_reward_function"
AGENT = f"{ROLLOUT}.agent"


def list_errors(config) -> list[str]:
    return run_checks(config, CODE).errors


def test_every_mode_checks_the_users_code(composed):
    for mode in ("one_off_pipeline", "sync_filtered", "sync"):
        listed = list_checks(composed(f"trainer.v1.trainer_mode={mode}"))
        assert all(check in listed for check in CODE)


@pytest.mark.parametrize(
    ("source", "message"),
    thin_out_rows(
        [
            ("def compute_score(*args): return 0", None),
            ("async def compute_score(*args): return 0", None),
            ("class compute_score: pass", None),
            ("def compute_scores(*args): return 0", "did you mean compute_scores?"),
            ("def grade(*args): return 0", "not in {path}; it has grade"),
            ("", "it has none"),
            (
                "compute_score = 1",
                ".name=compute_score: a int in {path}, and verl calls a function",
            ),
            (
                "import no_such_module_at_all",
                "ModuleNotFoundError: No module named 'no_such_module",
            ),
            ("1 / 0", "cannot be imported (ZeroDivisionError: division by zero)"),
            ("raise RuntimeError('two\\nlines')", "(RuntimeError: two lines)"),
            ("import sys; sys.exit('gone')", "(SystemExit: gone)"),
            ("def compute_score(:", "(SyntaxError: "),
        ],
        keep=5,
    ),
)
def test_a_reward_function(composed, tmp_path, source, message):
    path = tmp_path / "reward.py"
    path.write_text(source)
    lines = list_errors(composed(f"{REWARD}.path={path}"))
    if message is None:
        assert lines == []
    else:
        (line,) = lines
        assert line.startswith(f"{REWARD}.") and message.format(path=path) in line


PLANTED = "pkg://tests.helpers.small_task"


@pytest.mark.parametrize(
    ("overrides", "message"),
    thin_out_rows(
        [
            ([f"{REWARD}.path=nowhere.py"], f"{REWARD}.path=nowhere.py: no such file"),
            (
                [f"{REWARD}.path=pkg://no.module"],
                f"{REWARD}.path=pkg://no.module: cannot be imported",
            ),
            (
                [f"{REWARD}.path=pkg://verl_pipeline.rewards.code", f"{REWARD}.name=compute_scor"],
                "did you mean compute_score?",
            ),
            (
                ["reward.reward_manager.name=naiv"],
                "manager.name=naiv: unknown; did you mean naive?",
            ),
            (["reward.reward_manager.source=x"], "must be register or importlib"),
            (
                ["reward.reward_manager.source=importlib"],
                "reward.reward_manager.module.path=null: ",
            ),
            (
                [
                    "reward.reward_manager.source=importlib",
                    f"reward.reward_manager.module.path={PLANTED}",
                ],
                f"reward.reward_manager.name=naive: not in {PLANTED}",
            ),
            (
                ["data.custom_cls.path=pkg://json", "data.custom_cls.name=JSONDecode"],
                "data.custom_cls.name=JSONDecode: not in pkg://json; did you mean JSONDecoder?",
            ),
            (
                ["data.custom_cls.path=pkg://json", "data.custom_cls.name=JSONDecoder"],
                "must hold a subclass of torch.utils.data.dataset.Dataset",
            ),
            (
                ["data.sampler.class_path=pkg://json", "data.sampler.class_name=JSONDecoder"],
                "must hold a subclass of torch.utils.data.sampler.Sampler",
            ),
            ([f"{AGENT}.agent_loop_manager_class=Mine"], "Mine: write module.Class"),
            (
                [f"{AGENT}.agent_loop_manager_class=json.Decoder"],
                "agent_loop_manager_class=Decoder: not in pkg://json; did you mean JSONDecoder?",
            ),
            (
                [f"{ROLLOUT}.checkpoint_engine.custom_backend_module=no.such"],
                "custom_backend_module=pkg://no.such: cannot be imported",
            ),
            (
                [f"{AGENT}.custom_async_server.path=pkg://json"],
                "custom_async_server.name=None: not in pkg://json",
            ),
        ],
        keep=5,
    ),
)
def test_other_code_of_the_users(composed, overrides, message):
    (line,) = list_errors(composed(*(f"++{override}" for override in overrides)))
    assert message in line


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("- name: a\n  _target_: json.JSONDecoder\n", []),
        ("- name: a\n- name: b\n  _target_: json.Nothing\n", ["must be an entry", "b: _target_="]),
        ("[", ["not valid YAML"]),
        ("5", ["not valid YAML"]),
    ],
)
def test_a_file_of_agent_loops(composed, tmp_path, text, messages):
    path = tmp_path / "loops.yaml"
    path.write_text(text)
    lines = list_errors(composed(f"{AGENT}.agent_loop_config_path={path}"))
    assert len(lines) == len(messages)
    for line, message in zip(lines, messages, strict=True):
        assert message in line and "\n" not in line


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (os.mkdir, "is a folder"),
        (os.mkfifo, "loops.yaml"),
        (lambda path: path.write_text("[]", encoding="utf-16"), "UTF-16 text: save it as UTF-8"),
        (lambda path: path.write_text("a:\n\tb"), "loops.yaml:2: not valid YAML"),
    ],
    ids=["a folder", "a pipe", "UTF-16", "a tab"],
)
def test_what_is_no_file_of_agent_loops(composed, tmp_path, make, message):
    path = tmp_path / "loops.yaml"
    make(path)
    (line,) = list_errors(composed(f"{AGENT}.agent_loop_config_path={path}"))
    assert message in line and "Error:" not in line
