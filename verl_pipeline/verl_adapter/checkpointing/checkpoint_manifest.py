"""What belongs to a checkpoint: ``checkpoint.json``, with size and checksum of every part.

    {"format": 1, "step": 4, "serial": 2, "keep": {"actor": 1},
     "parts": [{"path": "actor/model_world_size_1_rank_0.pt", "size": 5, "checksum": "..."}, ...]}

Invariants:
* A folder with a manifest holds a checkpoint that was complete: the manifest is written last, and
  the folder gets its name after that. A folder with a tombstone holds none.
* Every part is on the disk before the manifest is. Each rank saves and reads its own parts, on the
  node that wrote them.
* Files that the manifest does not name are not the checkpoint's.
"""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import xxhash
from pydantic import TypeAdapter, ValidationError

from verl_pipeline.outputs.files import save_folder, write_json

MANIFEST, TOMBSTONE = "checkpoint.json", "checkpoint.removed.json"
FORMAT = 1
_CHUNK_BYTES = 1 << 20
# The rank in the names of FSDP's shards (..._rank_3.pt) and of distributed ones (__3_0.distcp).
_RANK = re.compile(r"(?:_rank_|^__)(\d+)")


@dataclass(frozen=True)
class Part:
    """One file.

    Attributes:
        path: below the step's folder, with ``/``.
        size: in bytes.
        checksum: XXH3, 64 bit, in hexadecimal digits.
    """

    path: str
    size: int
    checksum: str


@dataclass(frozen=True)
class Manifest:
    """A complete checkpoint.

    Attributes:
        step: its global step.
        serial: greater than that of every checkpoint that was in the folder before it.
        keep: the limits under which it was written, by the model's folder; a model without one is
            kept for ever.
        parts: its files.
        format: :data:`FORMAT`.
    """

    step: int
    serial: int
    keep: dict[str, int]
    parts: tuple[Part, ...]
    format: int = FORMAT


class ManifestError(ValueError):
    """A manifest cannot be read; the message says why."""


_ADAPTER = TypeAdapter(Manifest)


def list_files(folder: Path) -> list[str]:
    """Paths of the files below ``folder``, with ``/``, sorted; links to folders are followed."""
    found = []
    for parent, _folders, names in os.walk(folder, followlinks=True):
        found += [(Path(parent) / name).relative_to(folder).as_posix() for name in names]
    return sorted(set(found) - {MANIFEST, TOMBSTONE})


def select_share(paths: Iterable[str], rank: int, ranks: int) -> list[str]:
    """Those of ``paths`` that ``rank`` of ``ranks`` wrote: each path is of one rank."""
    return [path for path in paths if _find_writer(path, ranks) == rank]


def _find_writer(path: str, ranks: int) -> int:
    # verl's rank 0 writes what all ranks share.
    match = _RANK.search(path.rpartition("/")[2])
    number = int(match[1]) if match else 0
    return number if number < ranks else 0


def seal_parts(folder: Path, paths: Iterable[str]) -> list[Part]:
    """Save files of this process's node to the disk, and describe them.

    Args:
        folder: the step's folder.
        paths: below it.

    Raises:
        OSError: a file cannot be read or saved.
    """
    return [_seal_part(folder, path) for path in paths]


def _seal_part(folder: Path, path: str) -> Part:
    with (folder / path).open("rb") as file:
        os.fsync(file.fileno())
        size, checksum = _read_content(file)
    return Part(path, size, checksum)


def _read_content(file) -> tuple[int, str]:
    checksum, size = xxhash.xxh3_64(), 0
    buffer = memoryview(bytearray(_CHUNK_BYTES))
    while count := file.readinto(buffer):
        checksum.update(buffer[:count])
        size += count
    return size, checksum.hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a step's folder whose parts are all on the disk.

    Raises:
        OutputError: the system refuses.
    """
    for parent, _folders, _names in os.walk(folder, topdown=False):
        save_folder(Path(parent))
    write_json(folder / MANIFEST, asdict(manifest))


def read_manifest(folder: Path, name: str = MANIFEST) -> Manifest | None:
    """The manifest, or tombstone, of a step's folder; None if it has none.

    Raises:
        ManifestError: it is damaged, or of a newer format.
    """
    try:
        content = (folder / name).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ManifestError(f"{name} cannot be read ({error.strerror})") from error
    try:
        manifest = _ADAPTER.validate_json(content)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        raise ManifestError(f"{name} is damaged ({place or 'JSON'}: {fault['msg']})") from error
    if manifest.format != FORMAT:
        raise ManifestError(f"{name} has format {manifest.format}; this version reads {FORMAT}")
    return manifest


def find_wrong_size(folder: Path, parts: Sequence[Part]) -> str | None:
    """Name a part that is missing or has another size; None if there is none. Reads no content."""
    for part in parts:
        try:
            size = (folder / part.path).stat().st_size
        except OSError as error:
            return f"{part.path}: {error.strerror}"
        if size != part.size:
            return f"{part.path} has {size} of {part.size} bytes"
    return None


def find_damage(folder: Path, parts: Sequence[Part]) -> str | None:
    """Name a part that is not what its manifest says; None if there is none. Reads all of them."""
    if fault := find_wrong_size(folder, parts):
        return fault
    for part in parts:
        try:
            with (folder / part.path).open("rb") as file:
                _size, checksum = _read_content(file)
        except OSError as error:
            return f"{part.path}: {error.strerror}"
        if checksum != part.checksum:
            return f"{part.path} is damaged: its checksum is {checksum}, not {part.checksum}"
    return None
