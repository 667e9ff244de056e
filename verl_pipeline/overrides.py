"""What is wrong with the overrides of a command line, in one line each and with the nearest name.

Hydra stops at the first and answers with several lines, a search path, or a traceback.

Invariants:
* Only what Hydra refuses is an error, and ``+`` keys that hardly differ from ours: Hydra would add
  them, and nobody would read them.
* Nothing of verl is imported: its configuration is read as Hydra reads it.
"""

import difflib
import os
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import yaml
from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from verl_pipeline.errors import SettingsError
from verl_pipeline.trainer.pipeline_config import FILTERED_SYNC_MODE, TRAINER_MODE

# A configuration as plain mappings, its references unresolved.
Tree = dict[Any, Any]
# Everything that Hydra raises for what a user wrote; those that are not its own are slips of it.
COMPOSE_ERRORS = (
    *(HydraException, OmegaConfBaseException, yaml.YAMLError, OSError),
    *(ValueError, AssertionError, TypeError, AttributeError, LookupError, RecursionError),
)
# Groups of our overlays, the modes that we add to verl's, and where both are set.
OVERLAYS = ("verl_pipeline", "sync_filters", "grpo_plus")
MODES = (TRAINER_MODE, FILTERED_SYNC_MODE)
MODE_FIELD = "trainer.v1.trainer_mode"
_NEARLY = 0.85


class ComposeError(SettingsError):
    """Overrides that cannot be composed."""


def suggest_name(name: str, known: Collection[str]) -> str:
    """The nearest of the ``known`` names as a question, or all of them."""
    names = sorted(map(str, known))
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(names)}"


def compose_overrides(primary: str, overrides: Sequence[str]) -> DictConfig:
    """Compose the configuration ``primary`` with Hydra, which has been initialized.

    Raises:
        ComposeError: names all overrides that are wrong.
    """
    try:
        config = compose(primary, list(overrides))
        faults = list(_find_near_misses(overrides))
    except COMPOSE_ERRORS as error:
        faults = _explain_error(error, primary, overrides)
    if faults:
        raise ComposeError(*faults)
    return config


def names_ours(override: str) -> bool:
    """Whether an override chooses a mode or an overlay of ours, or may have been meant to."""
    key, _, value = override.lstrip("+~").partition("=")
    parts = key.split(".")
    return (
        _is_near(key, OVERLAYS)
        or any(_is_near(part, MODES) for part in parts)
        or (_is_near(parts[-1], ("trainer_mode",)) and _is_near(value, MODES))
    )


def list_repeated(overrides: Sequence[str]) -> list[str]:
    """The overrides that count where a key is given more than once: the last ones."""
    last = {override.lstrip("+").partition("=")[0]: override for override in overrides}
    keys = [override.lstrip("+").partition("=")[0] for override in overrides]
    return [override for key, override in last.items() if keys.count(key) > 1]


def _is_near(name: str, known: Collection[str]) -> bool:
    return bool(difflib.get_close_matches(name, known, n=1, cutoff=_NEARLY))


def _explain_error(error: Exception, primary: str, overrides: Sequence[str]) -> list[str]:
    """One line for each wrong override, or what Hydra says of the primary configuration."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file == primary:
        return [f"--config-name {primary}: no such configuration; name a file of --config-dir"]
    try:
        compose(primary)
    except COMPOSE_ERRORS as own_error:
        return [f"--config-name {primary}: {_shorten(own_error)}"]
    return _explain(primary, overrides) or [_shorten(error)]


def _explain(primary: str, overrides: Sequence[str]) -> list[str]:
    """One line for each wrong override; [] if only Hydra itself can tell."""
    faults, parsed = [], []
    for text in overrides:
        try:
            parsed.append(OverridesParser.create().parse_override(text))
        except COMPOSE_ERRORS as error:
            faults.append(f"{text}: not an override ({_shorten(error)}); {_advise_on_syntax(text)}")
    settings, good = [], []
    for override in parsed:
        options = _list_options(primary, override.key_or_group)
        if not options:
            settings.append(override)
        elif fault := _find_fault_of_group(override, options):
            faults.append(fault)
        else:
            good.append(str(override.input_line))
    try:
        tree = OmegaConf.to_container(compose(primary, good), resolve=False)
    except COMPOSE_ERRORS as error:
        return [*faults, _shorten(error)]
    for override in settings:
        if fault := _find_fault_of_setting(override, tree):
            faults.append(fault)
        else:
            good.append(str(override.input_line))
    faults += _find_near_misses(good)
    try:
        compose(primary, good)
    except COMPOSE_ERRORS as error:
        faults.append(_shorten(error))
    return faults


def _list_options(primary: str, group: str) -> list[str]:
    """The options of a group of configurations; [] if there is no such group."""
    loader = GlobalHydra.instance().config_loader()
    return [] if "." in group else loader.get_group_options(group, config_name=primary)


def _find_fault_of_group(override: Override, options: Sequence[str]) -> str:
    value = override.value()
    for name in value if isinstance(value, list) else [value]:
        if not isinstance(name, str | None):
            return f"{override.input_line}: must name one of {', '.join(options)}"
        # Names with a slash are options of a group below; Hydra says whether they exist.
        if name is not None and "/" not in name and name not in options:
            return f"{override.input_line}: no such option; {suggest_name(name, options)}"
    return ""


def _find_fault_of_setting(override: Override, tree: Tree) -> str:
    key, text = override.key_or_group, str(override.input_line)
    if override.is_sweep_override():
        return f"{text}: several values; write a list as [a,b], a text with a comma as '\"a,b\"'"
    node: Any = tree
    parents: list[str] = []
    for name in key.split("."):
        if isinstance(node, str) and node.startswith("${"):
            return ""  # another section stands here; Hydra says whether the key exists
        if not isinstance(node, dict) or name not in node:
            break
        parents.append(name)
        node = node[name]
    else:
        if override.is_add() and not isinstance(node, dict | list | None):
            return f"{text}: {key} has a value already; leave the + out"
        return ""
    if override.is_add() or override.is_force_add():
        return ""
    if override.is_delete():
        return f"{text}: there is no {key}; leave it out"
    return f"{text}: unknown key; {_suggest_key(key.split('.'), len(parents), tree)}"


def _suggest_key(parts: Sequence[str], wrong: int, tree: Tree) -> str:
    """The key that was meant: with part number ``wrong`` corrected, or the same name elsewhere."""
    node: Any = tree
    for name in parts[:wrong]:
        node = node[name]
    known = list(_list_keys(tree))
    siblings = [str(name) for name in node] if isinstance(node, dict) else []
    for near in difflib.get_close_matches(parts[wrong], siblings, n=3):
        meant = ".".join([*parts[:wrong], near, *parts[wrong + 1 :]])
        if meant in known:
            return f"did you mean {meant}?"
    key = ".".join(parts)
    elsewhere = [entry for entry in known if entry.endswith(f".{parts[-1]}")]
    near_keys = difflib.get_close_matches(key, elsewhere or known, n=1, cutoff=0.5)
    if near_keys or elsewhere:
        return f"did you mean {(near_keys or elsewhere)[0]}?"
    return f"a key without a default in verl is added with +{key}=..."


def _list_keys(node: Tree, prefix: str = "") -> Iterator[str]:
    for name, child in node.items():
        yield f"{prefix}{name}"
        if isinstance(child, dict):
            yield from _list_keys(child, f"{prefix}{name}.")


def _find_near_misses(overrides: Sequence[str]) -> Iterator[str]:
    """Added keys that differ from ours by a slip only, so that nothing would read them."""
    for override in overrides:
        key = override.lstrip("+").partition("=")[0]
        if not override.startswith("+"):
            continue
        *parents, last = key.split(".")[:3]
        known = OVERLAYS if not parents else MODES if parents == ["trainer", "v1"] else ()
        if last not in known and _is_near(last, known):
            near = difflib.get_close_matches(last, known, n=1)[0]
            meant = override.replace(last, near, 1)
            yield f"{override}: nothing reads this key; did you mean {meant}?"


def _advise_on_syntax(text: str) -> str:
    if "=" not in text:
        return "write key=value"
    value = text.partition("=")[2]
    if value.startswith("~"):
        return f"nobody expands ~ within a word: write {os.path.expanduser(value)}"
    return "put quotes around special characters: 'key=\"value\"'"


def _shorten(error: Exception) -> str:
    """Hydra's message in one line, without its search path and where its grammar is explained."""
    text = str(error.__cause__ if not str(error) and error.__cause__ else error)
    if isinstance(error, OSError) and error.strerror:
        text = f"a file of its defaults: {error.strerror}: {error.filename}"
    text = re.split(r"\n(?:Config s|S)earch path:|\nSee https://", text)[0]
    return " ".join(text.split()) or type(error).__name__
