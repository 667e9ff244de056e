"""A data setting passes our check exactly if verl's own data set can read it."""

import random
import shutil
import types

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf
from verl.utils.dataset.rl_dataset import RLHFDataset

from verl_pipeline.trainer.pipeline_config import ROLLOUT, ConfigError
from verl_pipeline.verl_adapter.checks.check_report import NotChecked
from verl_pipeline.verl_adapter.checks.data_files import (
    DataFileError,
    check_data_files,
    find_data_files,
    list_entries,
)
from verl_pipeline.verl_adapter.checks.machine_checks import check_files

ROW = '{"prompt": [{"role": "user", "content": "a"}]}'


def write_parquet(path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name in ("one.parquet", "parts/a.parquet", "parts/b.parquet", "parts/deep/c.parquet"):
        write_parquet(folder / name, n=[1, 2])
    write_parquet(folder / "text.parquet", n=["x"])
    write_parquet(folder / "short.parquet", n=pa.array([1], pa.int32()))
    write_parquet(folder / "other.parquet", m=[1])
    write_parquet(folder / "null.parquet", n=pa.array([None], pa.null()))
    write_parquet(folder / "no-rows.parquet", n=pa.array([], pa.int64()))
    write_parquet(folder / "unlike" / "a.parquet", n=[1])
    write_parquet(folder / "unlike" / "b.parquet", m=[1])
    write_parquet(folder / "folder.parquet" / "d.parquet", n=[1])
    for name in ("a,b.parquet", "with space.parquet", ".hidden.parquet", "br[1].parquet"):
        write_parquet(folder / name, n=[1])
    for name in ("UPPER.PARQUET", "one.parquet.gz", "one.arrow", "one"):
        shutil.copy(folder / "one.parquet", folder / name)
    (folder / "rows.jsonl").write_text(f"{ROW}\n{ROW}\n")
    (folder / "rows.json").write_text(f"[{ROW}]")
    (folder / "broken.parquet").write_text("no parquet")
    (folder / "empty.parquet").touch()
    (folder / "empty.jsonl").touch()
    (folder / "link.parquet").symlink_to(folder / "one.parquet")
    return folder


@pytest.fixture(autouse=True)
def in_the_folder(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def read_with_verl(value, **settings) -> int:
    """Return the number of rows that verl's data set has."""
    config = OmegaConf.create({"filter_overlong_prompts": False, **settings})
    return len(RLHFDataset(value, None, config))


def is_read_by_verl(value, **settings) -> bool:
    try:
        read_with_verl(value, **settings)
    except Exception:  # of every kind: TypeError, IndexError, AssertionError, ArrowInvalid ...
        return False
    return True


def find_refusal(value, **settings) -> str | None:
    try:
        check_data_files(value, **settings)
    except DataFileError as error:
        return str(error)
    return None


READ = [
    "one.parquet",
    "DIR/one.parquet",
    "./one.parquet",
    "DIR/parts/../one.parquet",
    "DIR//one.parquet",
    "file://DIR/one.parquet",
    "file://DIR/parts/*.parquet",
    "DIR/parts/*.parquet",
    "DIR/parts/?.parquet",
    "DIR/parts/[ab].parquet",
    "DIR/parts/**/*.parquet",
    "DIR/**/c.parquet",
    "parts/*.parquet",
    "DIR/p*/a.parquet",
    "DIR/folder.parquet/*.parquet",
    "DIR/a,b.parquet",
    "DIR/with space.parquet",
    "DIR/.hidden.parquet",
    "DIR/link.parquet",
    "DIR/rows.jsonl",
    "DIR/rows.json",
    ["one.parquet", "DIR/parts/*.parquet"],
    ["DIR/parts/a.parquet", "DIR/parts/a.parquet"],
    ["DIR/one.parquet", "DIR/rows.jsonl"],
    ["DIR/one.parquet", "DIR/other.parquet"],
    ["DIR/one.parquet", "DIR/null.parquet"],
]
REFUSED = [
    ("parts", "a folder, and verl reads files; write parts/*.parquet"),
    ("DIR/parts/", "a folder, and verl reads files; write DIR/parts/*.parquet"),
    ("DIR/folder.parquet", "write DIR/folder.parquet/*.parquet"),
    ("DIR/parts/*", "write DIR/parts/*.parquet"),
    ("DIR/rows.json*", "write DIR/rows.json*.parquet"),
    ("DIR/none.parquet", "no such file; correct the path"),
    ("DIR/none/*.parquet", "no such file; correct the path"),
    ("DIR/z*.parquet", "no such file; correct the path"),
    ("~/one.parquet", "verl does not expand ~: write DIR/one.parquet"),
    ("~/parts/*.parquet", "verl does not expand ~: write DIR/parts/*.parquet"),
    ("$HOME/one.parquet", "verl does not expand variables: write DIR/one.parquet"),
    ("one.parquet,text.parquet", "several files are a list: write [one.parquet,text.parquet]"),
    ("DIR/parts/{a,b}.parquet", "several files are a list"),
    ("DIR/br[1].parquet", "its name reads as a pattern: rename it"),
    ("DIR/UPPER.PARQUET", "names end with .parquet, .json, .jsonl"),
    ("DIR/one.parquet.gz", "names end with .parquet, .json, .jsonl"),
    ("DIR/one.arrow", "names end with .parquet, .json, .jsonl"),
    ("DIR/one", "names end with .parquet, .json, .jsonl"),
    ("one.parquet/", "names end with .parquet, .json, .jsonl"),
    ("one.parquet ", "names end with .parquet, .json, .jsonl"),
    ("hdfs://host/folder", "names end with .parquet, .json, .jsonl"),
    ("DIR/broken.parquet", "not a readable parquet file"),
    ("DIR/empty.parquet", "not a readable parquet file"),
    ("DIR/empty.jsonl", "empty, which verl cannot read"),
    ("DIR/no-rows.parquet", "has no rows, which verl cannot read"),
    ("DIR/unlike/*.parquet", "is not in all files of the pattern"),
    (["DIR/one.parquet", "DIR/text.parquet"], "the columns do not fit together"),
    (["DIR/one.parquet", "DIR/short.parquet"], "the columns do not fit together"),
    (["DIR/one.parquet", "DIR/none.parquet"], "none.parquet: no such file"),
    ([], "no file; name at least one"),
    (None, "None is no path"),
    ([None], "None is no path"),
    ("", "'' is no path"),
    ([["one.parquet"]], "is no path"),
    (3, "3 is no path"),
    ({"one": "one.parquet"}, "is no path"),
]


def fill_in(value, folder):
    """Put the folder's path for DIR, as a configuration's value."""
    if isinstance(value, str):
        return value.replace("DIR", str(folder))
    return OmegaConf.create({"value": value and _replace(value, folder)}).value


def _replace(value, folder):
    if isinstance(value, list):
        return [_replace(entry, folder) for entry in value]
    return value.replace("DIR", str(folder)) if isinstance(value, str) else value


@pytest.mark.parametrize("value", READ, ids=str)
def test_what_verl_reads_passes(folder, value):
    value = fill_in(value, folder)
    files = [file for entry in list_entries(value) for file in find_data_files(entry)]
    assert find_refusal(value) is None
    # The same files: verl has as many rows as they have one by one.
    assert read_with_verl(value) == sum(read_with_verl(file) for file in files) > 0


@pytest.mark.parametrize(("value", "message"), REFUSED, ids=str)
def test_what_verl_refuses_is_refused_with_the_next_step(folder, value, message):
    value = fill_in(value, folder)
    refusal = find_refusal(value)
    assert refusal and message.replace("DIR", str(folder)) in refusal and "\n" not in refusal
    if not str(value).startswith("hdfs://"):  # verl asks for a Hadoop client first
        assert not is_read_by_verl(value)


@pytest.mark.medium
def test_generated_values_agree_with_verl(folder):
    """Values of random parts: every prefix with every pattern and every ending, and lists."""
    prefixes = ["", "./", f"{folder}/", f"file://{folder}/", "parts/", f"{folder}/p*/", "~/"]
    stems = ["one", "*", "a", "?", "[ab]", "[!a]", "**/c", "other", "rows", "part*"]
    endings = [*[".parquet"] * 5, ".json", ".jsonl", ".json*", "", "/", ".csv", ".*"]
    pick = random.Random(0).choice
    read = 0
    for number in range(120):
        entries = [pick(prefixes) + pick(stems) + pick(endings) for _ in range(pick([1, 1, 1, 2]))]
        value = OmegaConf.create(entries) if number % 2 or len(entries) > 1 else entries[0]
        agreed = is_read_by_verl(value)
        assert (find_refusal(value) is None) == agreed, entries
        read += agreed
    assert read > 8  # some of both kinds


@pytest.mark.parametrize(
    "value", ["one.parquet", "parts/*.parquet", "file://DIR/one.parquet", "~/one.parquet", "parts"]
)
def test_shared_memory_takes_single_files_only(folder, monkeypatch, tmp_path, value):
    value = fill_in(value, folder)
    monkeypatch.setattr(  # as verl's, but not below /dev/shm
        "verl.utils.fs.copy_to_shm", lambda path: str(shutil.copy2(path, tmp_path / "copy.parquet"))
    )
    assert (find_refusal(value, use_shm=True) is None) == is_read_by_verl(value, use_shm=True)


@pytest.mark.parametrize(
    "url", ["hdfs://host/a.parquet", "s3://b/a.parquet", "hf://datasets/a.json"]
)
def test_a_remote_file_is_left_to_verl(url):
    assert find_data_files(url) == [] and find_refusal(url) is None


def list_findings(config) -> list[str]:
    return [str(finding) for finding in check_files(config)]


def test_the_refusal_names_the_setting(composed):
    for override, message in (
        ("data.train_files=parts", "data.train_files=parts: a folder, and verl reads"),
        ("data.val_files=[]", "data.val_files=[]: no file; name at least one"),
        ("data.val_files=null", "data.val_files=None is no path"),
    ):
        (finding,) = check_files(composed(override))
        assert isinstance(finding, ConfigError) and str(finding).startswith(message)
    assert not list_findings(
        composed("data.train_files=parts/*.parquet", "data.val_files=[rows.jsonl]")
    )


def test_both_settings_are_looked_at_and_remote_files_named(composed):
    findings = list(
        check_files(
            composed("data.train_files=[one.parquet,s3://b/a.parquet]", "data.val_files=none.json")
        )
    )
    assert [type(finding) for finding in findings] == [NotChecked, ConfigError]
    assert "s3://b/a.parquet: a remote file" in str(findings[0])


def test_other_files_that_settings_name_must_exist(composed):
    names = (f"{ROLLOUT}.multi_turn.tool_config_path", f"{ROLLOUT}.agent.agent_loop_config_path")
    good = ("data.train_files=one.parquet", "data.val_files=one.parquet")
    wrong = [f"{name}=nowhere{number}.yaml" for number, name in enumerate(names)]
    resumed = ("trainer.resume_mode=resume_path", "trainer.resume_from_path=nowhere")
    findings = list_findings(composed(*good, *wrong, *resumed))
    assert sorted(text.split(": ")[0] for text in findings) == sorted([*wrong, resumed[1]])
    assert not list_findings(composed(*good, f"{names[0]}=rows.json"))


def test_no_checkpoint_folder_is_called_tilde(composed):
    good = ("data.train_files=one.parquet", "data.val_files=one.parquet")
    [finding] = list_findings(composed(*good, "trainer.default_local_dir='~/run'"))
    assert finding.startswith("trainer.default_local_dir=~/run: ~ stands for itself")


def test_a_data_set_with_a_reader_of_its_own_may_read_anything(composed, monkeypatch):
    module = types.ModuleType("planted_data_set")
    module.OwnReader = type("OwnReader", (RLHFDataset,), {"_read_files_and_tokenize": print})
    module.SameReader = type("SameReader", (RLHFDataset,), {})
    monkeypatch.setitem(__import__("sys").modules, "planted_data_set", module)
    path = "data.custom_cls.path=pkg://planted_data_set"
    (finding,) = check_files(
        composed("data.train_files=parts", path, "data.custom_cls.name=OwnReader")
    )
    assert isinstance(finding, NotChecked)
    (finding,) = check_files(
        composed("data.train_files=parts", path, "data.custom_cls.name=SameReader")
    )
    assert str(finding).startswith("data.train_files=parts: a folder")
