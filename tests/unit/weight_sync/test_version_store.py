"""The store of versions: what is read is what was put, whoever reads, drops or dies meanwhile."""

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.helpers.patience import scale_deadline, wait_until
from verl_pipeline.weight_sync.buckets import WeightSyncError
from verl_pipeline.weight_sync.host_memory import check_host_memory, measure_shared_memory
from verl_pipeline.weight_sync.shared_segment import SEGMENT_PREFIX
from verl_pipeline.weight_sync.version_store import VersionMissing, VersionStore

DTYPES = [torch.float32, torch.bfloat16, torch.int64, torch.uint8]
LIMIT = 2


def make_name():
    return uuid.uuid4().hex[:12]


def make_weights(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        f"layer.{index}": (torch.randn(shape, generator=generator) * 50).to(DTYPES[kind])
        for index, (shape, kind) in enumerate(shapes)
    }


def assert_equal(stored, weights):
    assert stored.keys() == weights.keys()
    for name, weight in weights.items():
        assert stored[name].dtype == weight.dtype and torch.equal(stored[name], weight)


SHAPES = st.lists(
    st.tuples(st.lists(st.integers(0, 30), max_size=2), st.integers(0, len(DTYPES) - 1)),
    max_size=6,
)


class Store(RuleBasedStateMachine):
    """A leader's store and another process's view of it, beside a dictionary."""

    def __init__(self):
        super().__init__()
        name = make_name()
        self.leader = VersionStore(name, LIMIT, timeout_s=0.02)
        self.other = VersionStore(name, LIMIT)
        self.kept = {}
        self.readers = []
        self.next = 0

    def teardown(self):
        for stored, _weights in self.readers:
            stored.close()
        self.leader.close()

    @rule(shapes=SHAPES)
    def put(self, shapes):
        weights = make_weights(shapes, self.next)
        dropped = {
            stored.segment_name for stored, _w in self.readers if stored.version not in self.kept
        }
        if len(self.kept) + len(dropped) >= LIMIT:
            with pytest.raises(WeightSyncError, match=f"no place for v_{self.next}: "):
                self.leader.put(self.next, weights.items())
            return
        nbytes = self.leader.put(self.next, weights.items())
        assert nbytes == sum(weight.nbytes for weight in weights.values())
        self.kept[self.next] = weights
        self.next += 1

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def drop(self, data):
        version = data.draw(st.sampled_from(sorted(self.kept)))
        self.leader.drop(version)
        del self.kept[version]

    @precondition(lambda self: self.kept)
    @rule(data=st.data(), is_leader=st.booleans())
    def begin_reading(self, data, is_leader):
        version = data.draw(st.sampled_from(sorted(self.kept)))
        store = self.leader if is_leader else self.other
        self.readers.append((store.get(version), self.kept[version]))

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def end_reading(self, data):
        stored, _weights = self.readers.pop(data.draw(st.integers(0, len(self.readers) - 1)))
        stored.close()

    @invariant()
    def what_is_read_stays(self):
        for stored, weights in self.readers:
            assert_equal(dict(stored), weights)

    @invariant()
    def what_is_kept_is_found_and_nothing_else(self):
        assert self.leader.list_versions() == sorted(self.kept)
        for version in range(self.next + 1):
            if version not in self.kept:
                with pytest.raises(VersionMissing, match=f"v_{version} is not in"):
                    self.other.get(version)
                continue
            with self.other.get(version) as stored:
                assert_equal(dict(stored), self.kept[version])


TestStore = Store.TestCase
TestStore.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)


@pytest.fixture
def store():
    store = VersionStore(make_name(), LIMIT, timeout_s=0.05)
    yield store
    store.close()


def list_files(store):
    return sorted(path.name for path in Path("/dev/shm").glob(f"{store._prefix}*"))


def test_the_memory_of_a_dropped_version_is_used_again(store):
    for version in range(5):
        store.put(version, make_weights([([100], 0)], version).items())
        if version:
            store.drop(version - 1)
    assert len(list_files(store)) == LIMIT
    store.close()
    assert list_files(store) == []


def test_a_version_whose_writing_failed_is_not_found_and_takes_no_place(store):
    with pytest.raises(ZeroDivisionError), store.write(1) as writer:
        writer.add("w", torch.ones(3))
        raise ZeroDivisionError
    with pytest.raises(VersionMissing, match="which holds nothing"):
        store.get(1)
    store.put(1, [("w", torch.zeros(3))])
    store.put(2, [("w", torch.zeros(3))])
    assert len(list_files(store)) == LIMIT


def test_a_version_is_not_found_before_it_is_complete(store):
    with store.write(1) as writer:
        writer.add("w", torch.ones(3))
        with pytest.raises(VersionMissing):
            store.get(1)
    store.get(1).close()


def test_a_version_is_stored_once_and_dropped_where_it_was_stored(store):
    store.put(1, [("w", torch.ones(3))])
    with pytest.raises(WeightSyncError, match="v_1 is stored already"):
        store.put(1, [("w", torch.ones(3))])
    with pytest.raises(VersionMissing, match="v_2 was not stored here"):
        store.drop(2)


def run_child(code):
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, stdin=subprocess.PIPE
    )
    line = child.stdout.readline().strip()
    return child, line


CHILD = (
    "import sys, torch; from verl_pipeline.weight_sync.version_store import VersionStore;"
    "store = VersionStore({name!r}, 2);"
)


@pytest.mark.medium
def test_a_reader_that_is_killed_frees_its_version(store):
    store.put(1, [("w", torch.ones(3))])
    name = store._prefix.removeprefix(SEGMENT_PREFIX).removesuffix("_")
    code = CHILD.format(name=name) + (
        "held = store.get(1); print(float(dict(held)['w'].sum()), flush=True); sys.stdin.read()"
    )
    child, line = run_child(code)
    try:
        assert line == "3.0"
        store.put(2, [("w", torch.ones(3))])
        store.drop(1)
        with pytest.raises(WeightSyncError, match=r"no place for v_3: .*have been read for 0.05 s"):
            store.put(3, [("w", torch.ones(3))])
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait(scale_deadline(30))
    store.put(3, [("w", torch.ones(3))])


@pytest.mark.medium
def test_the_memory_of_a_killed_writer_goes_while_readers_keep_what_they_mapped():
    name = make_name()
    code = CHILD.format(name=name) + (
        "store.put(1, [('w', torch.ones(3))]); print('stored', flush=True); sys.stdin.read()"
    )
    child, _line = run_child(code)
    reader = VersionStore(name, LIMIT)
    with reader.get(1) as stored:
        child.send_signal(signal.SIGKILL)
        child.wait(scale_deadline(30))
        # Python's resource tracker outlives the process it tracks.
        wait_until(lambda: not list_files(reader), 20, "the segments to be removed")
        assert torch.equal(dict(stored)["w"], torch.ones(3))
    with pytest.raises(VersionMissing):
        reader.get(1)


@pytest.mark.medium
def test_no_room_in_shared_memory_is_said_and_kills_nobody():
    """In a /dev/shm of its own of 40 MiB."""
    code = CHILD.format(name=make_name()) + (
        "from verl_pipeline.weight_sync.buckets import WeightSyncError\n"
        "try: store.put(1, [(str(i), torch.ones(1 << 20)) for i in range(12)])\n"
        "except WeightSyncError as error: print(error)\n"
        "print(store.put(1, [('w', torch.ones(3))]))"
    )
    script = f'mount -t tmpfs -o size=40m x /dev/shm && exec {sys.executable} -c "$CODE"'
    run = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=scale_deadline(120),
        env={**os.environ, "CODE": code},
    )
    if "unshare" in run.stderr or "mount" in run.stderr:
        pytest.skip(f"no mounts here: {run.stderr}")
    error, nbytes = run.stdout.splitlines()
    assert error.startswith("/dev/shm has no room for the next 16 MiB of a version of the weights")
    assert "--shm-size" in error and "staleness" in error
    assert nbytes == "12"


def test_host_memory_is_checked_before_anything_is_sent():
    check_host_memory(1 << 20, 3)
    room = measure_shared_memory()
    with pytest.raises(
        WeightSyncError,
        match=r"^3 versions of the weights of \S+ GiB each need \S+ GiB of host memory for each "
        r"rollout node, and .* free: .*, or lower trainer.v1.one_off_pipeline.staleness$",
    ):
        check_host_memory(room, 3)
