"""Writes a folder that a hub takes: model, card, configuration of the run, results of evaluations.

Invariants:
* The card is written last: a folder with one is complete.
* Records lose the folders of this machine's paths; what they name stays.
* A score is in the folder as its evaluation recorded it, with its caveats.
"""

import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from verl_pipeline.errors import UserError
from verl_pipeline.outputs.errors import name_system_errors
from verl_pipeline.outputs.files import write_text
from verl_pipeline.outputs.folders import LOCK_NAME, FolderKind, claim_output

HUB_FOLDER = FolderKind(
    "verl_pipeline.recipes.deepcoder.card",
    landmarks=("README.md", "run/stages.json"),
    written=("*", "run/*", "run/*/*", "data/*", "results/*/*"),
    option="--hub-folder",
)
# An absolute path with at least one folder before its last name.
LOCAL_PATH = re.compile(r"(?<![\w.:/])(?:/[\w.@+~-]+)+/([\w.@+~-]+)")


class HubFolderError(UserError):
    """The folder cannot be written."""


def write_hub_folder(
    target: Path, card: str, run: Path, data: Path, model: Path | None, evaluations: Sequence[Path]
) -> list[str]:
    """Write the folder; the same call replaces what an earlier one wrote.

    Args:
        card: text of the model card.
        run: folder of the training's command.
        data: folder of the preparation's.
        model: folder of the model in Hugging Face's format; None: the run has none.
        evaluations: folders of ``verl-pipeline eval``.

    Returns:
        The names of the files, below ``target``.

    Raises:
        HubFolderError: there is no whole model, or two evaluations have the same name.
        OutputError: the folder is not the command's own, or the system refuses.
    """
    if model is None or not has_weights(model):
        raise HubFolderError(
            f"{model or run}: no whole model; merge the last checkpoint (python -m "
            "verl.model_merger merge --backend fsdp --local_dir CHECKPOINT/actor --target_dir "
            "MODEL) and name it with --model"
        )
    names = [folder.resolve().name for folder in evaluations]
    if len(set(names)) < len(names):
        raise HubFolderError(f"two evaluations have the same folder name: {', '.join(names)}")
    records = dict(list_records(run, data, dict(zip(names, evaluations, strict=True))))
    weights = [path for path in sorted(model.iterdir()) if path.is_file() and path.name[0] != "."]
    inputs = {"RUN": run, "--data": data, "--model": model}
    with claim_output(target, HUB_FOLDER, inputs), name_system_errors(target):
        for path in weights:
            if path.name != "README.md":
                shutil.copyfile(path, target / path.name)
        for name, path in records.items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            write_text(target / name, strip_folders(path.read_text()))
        write_text(target / "README.md", card)
    return sorted({path.name for path in weights} | records.keys() | {"README.md"})


def has_weights(model: Path) -> bool:
    """Whether a folder holds a model in Hugging Face's format."""
    return any(model.glob("*.safetensors"))


def list_records(run: Path, data: Path, evaluations: dict[str, Path]) -> Iterator[tuple[str, Path]]:
    """Names in the hub's folder, and the files they are copies of."""
    yield "run/stages.json", run / "stages.json"
    for path in sorted(run.glob("*/metrics.jsonl")):
        yield f"run/{path.parent.name}/metrics.jsonl", path
    yield "data/report.json", data / "report.json"
    for name, folder in evaluations.items():
        yield f"results/{name}/results.json", folder / "results.json"


def strip_folders(text: str) -> str:
    """A record without the folders of absolute paths."""
    return LOCAL_PATH.sub(r"\1", text)


def make_upload_command(target: Path, name: str) -> str:
    """The hub's own command that uploads the folder."""
    command = ("hf", "upload", f"YOUR_ORG/{name}", str(target), ".", "--exclude", LOCK_NAME)
    return shlex.join(command)
