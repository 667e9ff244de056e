"""Files by which a folder counts as a saved model, without a model's content."""

from pathlib import Path


def write_model_files(folder: Path, content: str = "weights") -> Path:
    """Write ``model.safetensors`` and ``config.json`` into ``folder``; return the folder."""
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text(content)
    (folder / "config.json").write_text("{}")
    return folder
