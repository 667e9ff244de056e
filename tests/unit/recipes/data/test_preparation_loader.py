"""The settings of a preparation: profiles, documentation and refusals."""

import re
from dataclasses import fields, is_dataclass

import pytest
import yaml

from verl_pipeline.evaluation.eval_settings import BadSetting, EngineConfig, GraderConfig
from verl_pipeline.recipes.deepcoder.data.preparation_config import PrepareConfig, SourceConfig
from verl_pipeline.recipes.deepcoder.data.preparation_loader import PROFILE_FOLDER, load_preparation

DOCUMENTED_ELSEWHERE = (EngineConfig,)  # with the evaluation


def list_sections(config: type) -> dict[str, type]:
    return {
        field.name: field.default_factory
        for field in fields(config)
        if isinstance(field.default_factory, type) and is_dataclass(field.default_factory)
    }


def list_names(config: type, prefix: str = "") -> set[str]:
    found = set()
    for field in fields(config):
        section = list_sections(config).get(field.name)
        found |= (
            list_names(section, f"{prefix}{field.name}.")
            if section and section not in DOCUMENTED_ELSEWHERE
            else {prefix + field.name}
        )
    return found


def test_the_full_profile_shows_every_setting():
    def list_shown(node, prefix=""):
        for key, value in node.items():
            name = prefix + key
            yield from (
                list_shown(value, f"{name}.")
                if isinstance(value, dict) and value and key != "sources"
                else [name]
            )

    shown = yaml.safe_load((PROFILE_FOLDER / "prepare-full.yaml").read_text())
    assert set(list_shown(shown)) == list_names(PrepareConfig)
    text = (PROFILE_FOLDER / "prepare-full.yaml").read_text()
    assert all(field.name in text for field in fields(SourceConfig))


def test_every_setting_is_documented_in_its_class():
    def check_docstring(config: type) -> None:
        documented = re.findall(r"^ {8}([\w, ]+):", config.__doc__ or "", re.MULTILINE)
        listed = {name.strip() for line in documented for name in line.split(",")}
        own = {field.name for field in fields(config)} - list_sections(config).keys()
        assert own <= listed, (config, own - listed)
        for section in list_sections(config).values():
            check_docstring(section)

    check_docstring(PrepareConfig)
    check_docstring(SourceConfig)
    assert GraderConfig in list_sections(PrepareConfig).values()


@pytest.mark.parametrize("name", ["full", "cpu"])
def test_a_profile_is_known_by_its_name(name):
    assert load_preparation(name, []).sources
    assert load_preparation(str(PROFILE_FOLDER / f"prepare-{name}.yaml"), []) == load_preparation(
        name, []
    )


def test_the_full_profile_has_the_settings_of_deepcoder():
    config = load_preparation("full", [])
    assert list(config.sources) == ["taco", "primeintellect", "livecodebench"]
    assert (config.tests.min, config.length.max_tokens) == (5, 2048)
    assert (config.sources["livecodebench"].start, config.sources["livecodebench"].end) == (
        "2023-05-01",
        "2024-08-01",
    )
    assert config.split.heldout  # the stages validate on heldout.parquet
    defaults = PrepareConfig()
    for name in ("prompt", "tests", "length", "verify", "near", "difficulty", "grader"):
        assert getattr(config, name) == getattr(defaults, name)


VALID = ("sources.taco.limit=5", "model=quickstart")


@pytest.mark.parametrize(
    "settings, message",
    [
        (["lenght.max_tokens=5"], r"lenght: no such setting; did you mean length\?"),
        (["length.max_token=5"], r"length.max_token: no such setting; did you mean max_tokens\?"),
        (["sources.taco.limits=5"], r"sources.taco.limits: no such setting; did you mean limit\?"),
        (["sources.tacos.limit=5"], r"sources.tacos: no such source; did you mean taco\?"),
        (
            ["difficulty.engine.dtyp=x"],
            r"difficulty.engine.dtyp: no such setting; did you mean dtype\?",
        ),
        (["length.max_tokens=many"], r"length.max_tokens: "),
        (["length.max_tokens=0"], r"length.max_tokens=0: must be at least 1"),
        (
            ["verify.on_disagreement=keep"],
            r"verify.on_disagreement='keep': must be one of drop, mark",
        ),
        (["near.threshold=1.5"], r"near.threshold=1.5: must be above 0 and at most 1"),
        (
            ["difficulty.low=0.9", "difficulty.high=0.1"],
            r"difficulty.low=0.9 must be below difficulty.high=0.1",
        ),
        (["difficulty.mode=given"], r"difficulty.rates: name a file"),
        (
            ["sources.taco.start=2020-01-01"],
            r"sources.taco.start, end: the rows of this source have no date",
        ),
        (
            ["sources.livecodebench.start=May"],
            r"sources.livecodebench.start='May': not an ISO date",
        ),
        (["model="], "model= is empty"),
    ],
)
def test_wrong_settings_are_refused_by_name(settings, message):
    with pytest.raises(BadSetting, match=message):
        load_preparation(None, [*VALID, *settings])


def test_missing_sources_and_unreadable_files_are_refused(tmp_path):
    with pytest.raises(BadSetting, match="sources: no data source is selected; name at least one"):
        load_preparation(None, ["model=quickstart"])
    with pytest.raises(
        BadSetting, match=r"--config cpus: no such file, and no profile; did you mean cpu\?"
    ):
        load_preparation("cpus", [])
    broken = tmp_path / "broken.yaml"
    broken.write_text("sources: [")
    with pytest.raises(BadSetting, match="broken.yaml:1: not valid YAML"):
        load_preparation(str(broken), [])
