"""The store of versions: what is read is what was put, whoever reads, drops or dies meanwhile."""

import os
import subprocess
import sys

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.helpers.patience import scale_deadline
from verl_pipeline.weight_sync.buckets import WeightSyncError
from verl_pipeline.weight_sync.host_memory import check_host_memory, measure_free_memory
from verl_pipeline.weight_sync.version_store import VersionMissing, VersionReader, VersionStore

DTYPES = [torch.float32, torch.bfloat16, torch.int64, torch.uint8]
LIMIT = 2


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
        self.leader = VersionStore(LIMIT, timeout_s=0.02)
        self.other = VersionReader(self.leader.paths)
        self.kept = {}
        self.put_once = {}
        self.readers = []
        self.next = 0

    @rule(shapes=SHAPES)
    def put(self, shapes):
        weights = make_weights(shapes, self.next)
        dropped = {version for version, _stored in self.readers if version not in self.kept}
        if len(self.kept) + len(dropped) >= LIMIT:
            with pytest.raises(WeightSyncError, match=f"no place for v_{self.next}: "):
                self.leader.put(self.next, weights.items())
            return
        nbytes = self.leader.put(self.next, weights.items())
        assert nbytes == sum(weight.nbytes for weight in weights.values())
        self.kept[self.next] = self.put_once[self.next] = weights
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
        self.readers.append((version, store.get(version)))

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def end_reading(self, data):
        _version, stored = self.readers.pop(data.draw(st.integers(0, len(self.readers) - 1)))
        stored.close()

    @invariant()
    def what_is_read_stays(self):
        for version, stored in self.readers:
            assert_equal(dict(stored), self.put_once[version])

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
    return VersionStore(LIMIT, timeout_s=0.05)


def test_the_memory_of_a_dropped_version_is_used_again(store):
    def count_blocks():
        return sum(os.stat(path).st_blocks for path in store.paths)

    weights = {"w": torch.ones(1 << 20)}
    for version in range(LIMIT):
        store.put(version, weights.items())
    blocks = count_blocks()
    assert LIMIT * weights["w"].nbytes <= 512 * blocks < 10 * LIMIT * weights["w"].nbytes
    for version in range(LIMIT, 3 * LIMIT):
        store.drop(version - LIMIT)
        store.put(version, weights.items())
    assert count_blocks() == blocks


def test_a_version_whose_writing_failed_is_not_found_and_takes_no_place(store):
    with pytest.raises(ZeroDivisionError), store.write(1) as writer:
        writer.add("w", torch.ones(3))
        raise ZeroDivisionError
    with pytest.raises(VersionMissing, match="which holds nothing"):
        store.get(1)
    for version in range(1, 1 + LIMIT):
        store.put(version, [("w", torch.zeros(3))])


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


def start_child(code):
    """Start Python with the store imported; returns it and its first line of output."""
    imports = (
        "import sys, torch;"
        "from verl_pipeline.weight_sync.version_store import VersionReader, VersionStore;"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", imports + code], stdout=subprocess.PIPE, stdin=subprocess.PIPE
    )
    return child, child.stdout.readline().decode().strip()


def kill(child):
    child.kill()
    child.wait(scale_deadline(30))
    child.stdin.close()
    child.stdout.close()


@pytest.mark.medium
def test_a_reader_that_is_killed_frees_its_version(store):
    store.put(1, [("w", torch.ones(3))])
    child, line = start_child(
        f"held = VersionReader({store.paths}).get(1);"
        "print(float(dict(held)['w'].sum()), flush=True); sys.stdin.read()"
    )
    try:
        assert line == "3.0"
        store.put(2, [("w", torch.ones(3))])
        store.drop(1)
        with pytest.raises(WeightSyncError, match=r"no place for v_3: .*have been read for 0.05 s"):
            store.put(3, [("w", torch.ones(3))])
    finally:
        kill(child)
    store.put(3, [("w", torch.ones(3))])


@pytest.mark.medium
def test_readers_keep_what_they_read_when_the_writer_is_killed():
    child, line = start_child(
        "store = VersionStore(2); store.put(1, [('w', torch.ones(3))]);"
        "print(*store.paths, flush=True); sys.stdin.read()"
    )
    reader = VersionReader(line.split())
    with reader.get(1) as stored:
        kill(child)
        assert torch.equal(dict(stored)["w"], torch.ones(3))
    with pytest.raises(VersionMissing, match="v_1 is lost: the process .* has ended"):
        reader.get(1)


def test_no_room_is_said_before_memory_is_touched(store):
    with pytest.raises(
        WeightSyncError,
        match=r"^no host memory for the next \S+ GiB of a version of the weights, after 16.0 MiB "
        r"\(\S+ \S+ are free\): .*drained, which keeps none$",
    ):
        store.put(
            1, [("w", torch.ones(3)), ("x", torch.empty(1 << 44, dtype=torch.uint8, device="meta"))]
        )
    assert store.put(1, [("w", torch.ones(3))]) == 12


def test_host_memory_is_checked_before_anything_is_sent():
    check_host_memory(1 << 20, 3)
    with pytest.raises(
        WeightSyncError,
        match=r"^3 versions of the weights of \S+ GiB each need \S+ GiB of host memory, of which "
        r"\S+ \S+ are free: .*, or set \S+weight_sync_mode=drained, which keeps none$",
    ):
        check_host_memory(measure_free_memory(), 3)
