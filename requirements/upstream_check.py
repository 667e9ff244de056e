"""`make upstream-check VERL=x.y.z`: does another version of verl keep the contract?

Makes a virtual environment beside the project's, in a temporary folder, that holds this version of
verl only and takes everything else from the project's environment. In it, the names of
verl_pipeline/verl_adapter/contract.toml are compared with what that version offers. Prints the
differences; exits with 1 if there are some. Nothing of the project's environment changes.
"""

import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]


def make_environment(folder: Path, version: str) -> Path:
    """A virtual environment with this verl in front of the project's packages; its Python."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    (site_packages,) = (folder / "lib").glob("python*/site-packages")
    # addsitedir and not a plain path: it reads the .pth files there, editable installs included.
    packages = sysconfig.get_path("purelib")
    line = f"import site; site.addsitedir({packages!r})\n"
    (site_packages / "project.pth").write_text(line)
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--target", str(site_packages), f"verl=={version}"], check=True)
    return python


def compare_contract(python: Path) -> int:
    """Print what differs; the contract's exit code."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "ignore",
        # Our plugin extends classes that another version may lack: only its platform is needed.
        "VERL_USE_EXTERNAL_PLUGINS": "none",
        "VERL_USE_EXTERNAL_MODULES": "verl_pipeline.verl_adapter.cpu.platform",
        "VERL_PLATFORM": "cpu",
        "VERL_LOGGING_LEVEL": "ERROR",
    }
    command = [str(python), "-m", "verl_pipeline.verl_adapter.contract"]
    return subprocess.run(command, env=environment).returncode


def main() -> int:
    """Check the version named on the command line."""
    if len(sys.argv) != 2:
        print("usage: make upstream-check VERL=x.y.z", file=sys.stderr)
        return 2
    version = sys.argv[1]
    with tempfile.TemporaryDirectory(prefix="verl-upstream-") as folder:
        try:
            python = make_environment(Path(folder) / "venv", version)
        except subprocess.CalledProcessError:
            print(f"pip cannot install verl=={version}; see above", file=sys.stderr)
            return 2
        print(f"contract (verl_pipeline/verl_adapter/contract.toml) against verl {version}:")
        return compare_contract(python)


if __name__ == "__main__":
    sys.exit(main())
