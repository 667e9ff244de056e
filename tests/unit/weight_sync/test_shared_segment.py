"""Shared memory for weights, on a ``/dev/shm`` of a few MB that this test's programs see alone."""

import subprocess
import sys

import pytest

from tests.helpers.repository import ROOT

ASK = """
from pathlib import Path
from verl_pipeline.weight_sync.buckets import WeightSyncError
from verl_pipeline.weight_sync.shared_segment import create_segment
class Owner: pass
small = create_segment({small}, owner := Owner())
small.memory.fill_(7)
try:
    create_segment({large}, owner)
except WeightSyncError as error:
    print(error)
small.memory.fill_(8)
print(len(list(Path("/dev/shm").iterdir())), "segment is left")
"""


@pytest.mark.slow
def test_a_full_shared_memory_is_named_before_it_is_touched_and_takes_nothing_along():
    program = ASK.format(small=1 << 20, large=8 << 20)
    mounted = 'mount -t tmpfs -o size=4m none /dev/shm && exec "$@"'
    run = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mounted, "sh"]
        + [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    named, left = run.stdout.splitlines()
    assert named.startswith("/dev/shm has no room for 8 MiB ([Errno 28] No space left on device): ")
    assert "update_weights_bucket_megabytes" in named and left == "1 segment is left"
