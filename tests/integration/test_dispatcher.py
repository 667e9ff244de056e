"""The dispatcher and its clients in processes of their own: one that dies takes nobody with it."""

import pytest
import ray

from benchmarks.dispatch_actors import LoopWorker, start_actors, start_pool
from tests.helpers.patience import wait_until

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]
CASE, SLOTS, FOREVER = {"replicas": 2}, 3, 1e6


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def workers():
    started = start_actors(LoopWorker, 2)
    yield started
    for worker in started:
        ray.kill(worker)


def submit(worker, names, seconds):
    ray.get(worker.submit.remote(1, dict.fromkeys(names, seconds)))


def count_open(worker):
    return ray.get(worker.count_open.remote())


def read_book(pool):
    return pool.ask(lambda actor: (actor._book.open_count, actor._book.waiting_count))


def test_a_worker_that_dies_keeps_its_places_and_the_others_go_on(workers):
    """Its batch cannot be completed: the trainer's watchdog, which probes it, ends the run."""
    dying, living = workers
    with start_pool(CASE, workers, SLOTS) as pool:
        submit(dying, ["a0", "a1", "a2", "a3"], FOREVER)
        wait_until(lambda: read_book(pool) == (4, 0), 60, "four places")
        submit(living, [f"b{number}" for number in range(10)], 0.0)
        wait_until(lambda: count_open(living) == 0, 60, "ten trajectories on two slots")
        submit(dying, ["a4", "a5", "a6"], FOREVER)
        wait_until(lambda: read_book(pool) == (6, 1), 60, "a full pool, and one that waits")
        ray.kill(dying)
        submit(living, ["c0"], 0.0)
        wait_until(lambda: read_book(pool) == (6, 2), 60, "the slots, which stay taken")
        assert count_open(living) == 1
        pool.workers.remove(dying)


def test_who_waits_for_a_dispatcher_that_dies_is_told(workers):
    with start_pool(CASE, workers, SLOTS) as pool:
        submit(workers[0], [f"a{number}" for number in range(8)], FOREVER)
        wait_until(lambda: read_book(pool) == (6, 2), 60, "a full pool, and two that wait")
        ray.kill(pool.dispatcher)
        wait_until(lambda: count_open(workers[0]) == 6, 60, "the error of those that wait")
