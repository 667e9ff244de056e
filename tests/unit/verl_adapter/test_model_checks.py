"""A hub that refuses, answers wrongly or never answers ends soon, and in one line."""

import http.server
import socket
import threading

import pytest

from verl_pipeline.trainer.pipeline_config import ConfigError
from verl_pipeline.verl_adapter import model_checks
from verl_pipeline.verl_adapter.check_report import NotChecked, OutOfReachError

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


def test_a_remote_folder_is_left_to_verl(composed):
    with pytest.raises(NotChecked, match="path=hdfs://host/model: a remote folder"):
        model_checks.check_positions(composed("actor_rollout_ref.model.path=hdfs://host/model"))
