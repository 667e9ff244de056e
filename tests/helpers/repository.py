"""The repository's files."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def list_repository_files(*patterns: str) -> list[Path]:
    """Tracked files and new ones that are not ignored, as git's ``patterns`` choose them."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *patterns]
    try:
        listing = subprocess.run(
            command, cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"not a git checkout: {error}")
    paths = [ROOT / name for name in listing.split("\0") if name]
    return [path for path in paths if path.is_file() and ".venv" not in path.parts]
