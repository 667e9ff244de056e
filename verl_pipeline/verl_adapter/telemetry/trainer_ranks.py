"""What each trainer rank does, recorded in its own process.

Invariant: verl's methods run as they are, with the way in which verl distributes their data; the
time of a span is that of the method, with what it fetches and stores.
"""

import functools
from collections.abc import Callable
from typing import Any

import ray
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker

from verl_pipeline.telemetry.recorder import RunTarget, open_recorder
from verl_pipeline.telemetry.records import Pool

# By class of worker, its lanes' word, and the names of spans by its methods. A critic's worker is
# the same class that an actor's worker has inside; the roles name only the critic's.
RECORDED: dict[type, tuple[str, dict[str, str]]] = {
    ActorRolloutRefWorker: (
        "rank",
        {
            "compute_log_prob": "old_log_prob",
            "compute_ref_log_prob": "ref",
            "update_actor": "update_actor",
        },
    ),
    TrainingWorker: (
        "critic rank",
        {"infer_batch": "values", "train_mini_batch": "update_critic"},
    ),
}


def record_ranks(roles: dict[Any, Any], target: RunTarget) -> None:
    """Replace the workers in ``roles`` (Ray actor classes, by role) by ones that record."""
    for role, actor_class in roles.items():
        # The class as it was before Ray changed it, which is also what verl looks for: Ray does not
        # change a subclass of a changed class again, and verl would find the class below.
        plain = actor_class.__ray_actor_class__
        for base in RECORDED:
            if issubclass(plain, base):
                roles[role] = ray.remote(_record_rank(plain, base, target))


def _record_rank(worker_class: type, base: type, target: RunTarget) -> type:
    lane, spans = RECORDED[base]
    methods = {
        method: _record_method(getattr(worker_class, method), lane, span, target)
        for method, span in spans.items()
    }
    return type(f"Recording{worker_class.__name__}", (worker_class,), methods)


def _record_method(method: Callable, lane: str, span: str, target: RunTarget) -> Callable:
    # The method's attributes say how verl distributes its data.
    @functools.wraps(method)
    def recorded(self: Any, *args: Any, **kwargs: Any) -> Any:
        recorder = open_recorder(target, "trainer")
        with recorder.record_span(Pool.TRAINER, f"{lane} {self.rank}", span):
            return method(self, *args, **kwargs)

    return recorded
