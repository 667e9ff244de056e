"""A hub that refuses, answers wrongly or never answers ends soon, and in one line."""

import http.server
import shutil
import socket
import threading

import numpy as np
import pytest
from verl.workers.config import HFModelConfig

from verl_pipeline.trainer.pipeline_config import ROLLOUT, ConfigError
from verl_pipeline.verl_adapter.checks import model_checks
from verl_pipeline.verl_adapter.checks.check_list import examine_run
from verl_pipeline.verl_adapter.checks.check_report import OutOfReachError
from verl_pipeline.verl_adapter.checks.model_checks import MODEL
from verl_pipeline.verl_adapter.entry.run_plan import build_plan
from verl_pipeline.verl_adapter.trainers.filtering_trainer import read_length_limits

NAME = "nobody/nothing"


@pytest.fixture(autouse=True)
def with_an_empty_cache(monkeypatch, tmp_path):
    model_checks._try_model_config.cache_clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    yield
    model_checks._try_model_config.cache_clear()


def find_refusal(composed) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        model_checks.find_position_limit(composed(f"actor_rollout_ref.model.path={NAME}"))
    assert str(caught.value).startswith(f"actor_rollout_ref.model.path={NAME}: ")
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.fixture
def silent_hub():
    """Accepts connections, by the kernel's queue, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def hub_without_models():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_offline_nothing_is_asked(composed, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("subprocess.run", lambda *args, **kwargs: pytest.fail("asked"))
    error = find_refusal(composed)
    assert isinstance(error, OutOfReachError) and "HF_HUB_OFFLINE" in str(error)


def test_a_hub_that_refuses_connections_is_out_of_reach(composed, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    error = find_refusal(composed)
    assert isinstance(error, OutOfReachError) and "refused" in str(error)


def test_a_silent_hub_is_given_up(composed, monkeypatch, silent_hub):
    monkeypatch.setenv("HF_ENDPOINT", silent_hub)
    monkeypatch.setattr(model_checks, "HUB_DEADLINE_S", 3.0)
    error = find_refusal(composed)
    assert isinstance(error, OutOfReachError) and "did not answer within 3 s" in str(error)


def test_a_name_that_the_hub_does_not_know_is_an_error(composed, monkeypatch, hub_without_models):
    monkeypatch.setenv("HF_ENDPOINT", hub_without_models)
    error = find_refusal(composed)
    assert not isinstance(error, OutOfReachError) and "the hub refuses it" in str(error)


def test_nothing_stays_of_what_was_asked(composed, monkeypatch, tmp_path, hub_without_models):
    monkeypatch.setenv("HF_ENDPOINT", hub_without_models)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    find_refusal(composed)
    assert list((tmp_path / "temporary").iterdir()) == []


FORMS = ["{}", "{}/", "file://{}", "~/none", "s3://bucket/model", "gs://b/m", "hdfs://host/{}"]


@pytest.fixture
def hdfs(monkeypatch, tiny_directory):
    """verl's copy from HDFS finds the tiny model in every folder of that name."""

    def copy(src, dst):
        assert src.startswith("hdfs://host/")
        shutil.copytree(tiny_directory / "model", dst)

    monkeypatch.setattr("verl.utils.fs.copy", copy)


@pytest.fixture
def scratch(monkeypatch, tmp_path):
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))


@pytest.mark.parametrize("form", FORMS)
def test_a_path_passes_if_verl_can_open_it(
    composed, monkeypatch, tiny_directory, hdfs, scratch, form
):
    """Whatever ``HFModelConfig`` refuses is an error beforehand, and nothing else is."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = form.format(tiny_directory / "model")
    try:
        HFModelConfig(path=path)
    except (AssertionError, OSError):
        is_accepted = False
    else:
        is_accepted = True
    assert is_accepted == (form in ("{}", "hdfs://host/{}"))
    findings = list(model_checks.check_model_paths(composed(f"{MODEL}.path='{path}'")))
    assert any(isinstance(finding, ConfigError) for finding in findings) != is_accepted
    assert all(str(finding).startswith(f"{MODEL}.path={path}: ") for finding in findings)


def test_a_remote_model_is_left_to_verl_by_every_part(composed, tiny_directory, hdfs, scratch):
    """Its checks, its plan, its length limits: the model is verl's to copy."""
    remote = f"{MODEL}.path=hdfs://host/models/tiny"
    config = composed(remote, f"{ROLLOUT}.max_model_len=null", "data.max_response_length=250")
    report = examine_run(config, skip=["device"])
    assert report.errors == report.out_of_reach == []
    assert any("tiny: a remote folder, which verl copies" in note for note in report.not_checked)
    assert build_plan(config, report)["model"][0] == "hdfs://host/models/tiny"
    section = config.actor_rollout_ref
    limits = read_length_limits(section.rollout, section.model)
    assert limits.compute_limits(np.array([64])).tolist() == [192]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        # verl's default for the critic, which nobody has.
        ([], "critic.model.path=~/models/deepseek-llm-7b-chat: verl does not expand ~"),
        (["critic.model.path=/no/model"], "critic.model.path=/no/model: no such folder"),
        (["critic.model.path=s3://b/m"], "critic.model.path=s3://b/m: verl copies models from hd"),
    ],
)
def test_the_critics_model_is_looked_at_too(composed, overrides, message):
    config = composed("algorithm.adv_estimator=gae", *overrides)
    (finding,) = model_checks.check_model_paths(config)
    assert isinstance(finding, ConfigError) and str(finding).startswith(message)
    assert list(model_checks.check_model_paths(composed(*overrides))) == []


def test_a_reward_models_path_is_looked_at(composed):
    enabled = ["reward.reward_model.enable=True", "reward.reward_model.model_path=/no/model"]
    (finding,) = model_checks.check_model_paths(composed(*enabled))
    assert str(finding).startswith("reward.reward_model.model_path=/no/model: no such folder")
