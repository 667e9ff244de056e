"""What we predict of a pytest file is what pytest collects, or the file is refused."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.generated_pytest_files import make_pytest_file
from verl_pipeline.grading.readers import BadRow, read_kodcode

pytestmark = pytest.mark.timeout(300)
# Prints what pytest collects of each file: {file: {"TestClass::test_name": cases}}. A file that
# pytest cannot collect in full is left out.
COLLECTS = """
import collections, json, sys
import pytest

found, broken = collections.defaultdict(collections.Counter), set()

class Recorder:
    def pytest_collection_finish(self, session):
        for item in session.items:
            classes = [one.name for one in item.listchain() if isinstance(one, pytest.Class)]
            found[item.path.name]["::".join([*classes, item.originalname])] += 1

    def pytest_collectreport(self, report):
        if report.failed:
            broken.add(report.nodeid.split("::")[0])

pytest.main(["--collect-only", "-q", "--continue-on-collection-errors", "--noconftest",
             "--import-mode=importlib", "-c", "/dev/null", "--rootdir=.", "-p", "no:cacheprovider",
             "."], plugins=[Recorder()])
print(json.dumps({name: counts for name, counts in found.items() if name not in broken}))
"""


def collect_with_pytest(folder: Path) -> dict[str, dict[str, int]]:
    (folder / "solution.py").write_text("def f(): pass\n")
    done = subprocess.run(
        [sys.executable, "-c", COLLECTS], cwd=folder, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def predict(source: str) -> dict[str, int] | None:
    try:
        return dict(read_kodcode(source, name="generated").tests[0].collected)
    except BadRow:
        return None


@pytest.mark.parametrize("files", [100, pytest.param(1500, marks=pytest.mark.slow)])
def test_what_is_accepted_is_what_pytest_collects(tmp_path, files):
    predictions = {}
    for seed in range(files):
        source = make_pytest_file(seed)
        (tmp_path / f"test_{seed}.py").write_text(source)
        predictions[f"test_{seed}.py"] = predict(source)
    collected = collect_with_pytest(tmp_path)
    wrong = {
        name: (prediction, collected.get(name))
        for name, prediction in predictions.items()
        if prediction is not None and prediction != collected.get(name)
    }
    assert not wrong
    accepted = sum(prediction is not None for prediction in predictions.values())
    # The generator writes mostly what pytest or we refuse.
    assert files / 8 < accepted < files / 2
