"""After a weight sync: whether every replica holds what the trainer sent.

The checkpoint engine fingerprints what it sends (:mod:`.observed_sender`), vLLM's workers what they
hold (:mod:`.weight_reader`, asked by :mod:`.replica_reading`);
:mod:`verl_pipeline.weight_sync.comparison` compares. Where all replicas load at once,
:meth:`FingerprintCheck.compare` does it all; where each loads when it likes (:mod:`.publication`),
whoever lets it load hands in its readings.

Invariants:
* Only the first ``weight_check.fingerprint_syncs`` syncs of a run or of its resume are looked at,
  and then every ``fingerprint_every``-th version. A sync that is not costs nothing.
* Where nothing can be compared, the reason is printed once, and nothing counts as checked.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from omegaconf import DictConfig, OmegaConf

from verl_pipeline.trainer.pipeline_config import (
    PIPELINE_KEY,
    ROLLOUT,
    TRAINER_MODE,
    WeightCheck,
)
from verl_pipeline.verl_adapter.weights.observed_sender import ObservedSender
from verl_pipeline.verl_adapter.weights.replica_reading import ReadingRequest, read_replica
from verl_pipeline.verl_adapter.weights.weight_extension import EXTENSION, EXTENSION_FIELD
from verl_pipeline.weight_sync.comparison import (
    Comparison,
    RankReading,
    WeightsDiffer,
    compare_weights,
)
from verl_pipeline.weight_sync.fingerprint import TensorSum

# Versions whose readings may still come in.
KEPT = 16
# Of the places that differ, how many the error names.
SHOWN = 3


class FingerprintCheck:
    """Checks the first weight syncs, and some of the later ones.

    Args:
        config: verl's configuration, completed.
        settings: which syncs.
        actor_wg: the worker group that sends.
        engine_class: the class of its checkpoint engine.
        replicas: verl's replicas by the name that errors use.
    """

    def __init__(
        self,
        config: DictConfig,
        settings: WeightCheck,
        actor_wg: Any,
        engine_class: type,
        replicas: Mapping[str, Any],
    ):
        self._left = settings.fingerprint_syncs
        self._every = settings.fingerprint_every
        self._actor_wg = actor_wg
        self._is_observed = issubclass(engine_class, ObservedSender)
        self._replicas = replicas
        rollout = config.actor_rollout_ref.rollout
        dtype = str(rollout.dtype)
        self._dtype = None if dtype == "auto" else dtype
        self._starts_random = rollout.load_format == "dummy"
        self._obstacle = _find_obstacle(config, engine_class, self._is_observed)
        self._metrics = _count(0, 0)
        # By version: what was sent, and which of it all readings have agreed with.
        self._sent: dict[int, dict[str, TensorSum]] = {}
        self._checked: dict[int, set[str]] = {}
        self._shown: set[str] = set()

    def _is_due(self, version: int) -> bool:
        if self._obstacle is not None and self._shown:
            return False  # it has been said, with the number of tensors
        return self._left > 0 or (self._every > 0 and version % self._every == 0)

    def begin(self, version: int) -> None:
        """Before a sync: let the sender fingerprint it if it is to be checked."""
        if self._is_due(version) and self._is_observed:
            size = self._actor_wg.world_size
            names, dtypes = ["begin_observation"] * size, [self._dtype] * size
            ray.get(self._actor_wg.execute_checkpoint_engine(names, dtypes))

    def end(self, version: int) -> ReadingRequest | None:
        """After the weights were sent: what is to be read of each replica that holds them.

        Returns:
            None if nothing is to be compared, or nothing can be.
        """
        if not self._is_due(version):
            return None
        self._left = max(self._left - 1, 0)
        if not self._is_observed:
            self._show(str(self._obstacle))
            # How many tensors were sent is not known.
            self._metrics = {"pipeline/weights/checked_tensors": 0.0}
            return None
        size = self._actor_wg.world_size
        observed = ray.get(self._actor_wg.execute_checkpoint_engine(["end_observation"] * size))
        sent: dict[str, TensorSum] = next(filter(None, observed), {})
        if self._obstacle is not None:
            self._show(f"{len(sent)} tensors: {self._obstacle}")
            self._metrics = _count(0, len(sent))
            return None
        self._sent[version] = sent
        self._checked[version] = set(sent)
        for old in sorted(self._sent)[:-KEPT]:
            del self._sent[old], self._checked[old]
        return ReadingRequest(list(sent), self._dtype)

    def take_metrics(self) -> dict[str, float]:
        """``pipeline/weights/*`` of the syncs since the last call; of the last one compared."""
        metrics, self._metrics = self._metrics, _count(0, 0)
        return metrics

    def compare(self, version: int) -> None:
        """After a sync that all replicas have loaded: read them and compare.

        Raises:
            WeightsDiffer: as :meth:`compare_readings`.
        """
        if (request := self.end(version)) is not None:
            self.compare_readings(version, asyncio.run(self._read_replicas(request)))

    def compare_readings(self, version: int, readings: Mapping[str, Sequence[RankReading]]) -> None:
        """Compare what replicas hold with ``version`` as it was sent.

        Args:
            version: without effect if it is forgotten.
            readings: of the ranks, by the replica's name.

        Raises:
            WeightsDiffer: naming the tensor, the replica, the version and both figures.
        """
        if (sent := self._sent.get(version)) is None:
            return
        comparisons = {
            name: compare_weights(sent, ranks, starts_random=self._starts_random)
            for name, ranks in readings.items()
        }
        _refuse_differences(comparisons, version)
        unchecked: dict[str, str] = {}
        for comparison in comparisons.values():
            unchecked.update(comparison.unchecked)
        reasons: dict[str, list[str]] = {}
        for name, reason in unchecked.items():
            reasons.setdefault(reason, []).append(name)
        for reason, names in reasons.items():
            self._show(f"{len(names)} tensors, {names[0]} the first: {reason}")
        checked = self._checked[version]
        checked.intersection_update(*(entry.checked for entry in comparisons.values()))
        self._metrics = _count(len(checked), len(sent) - len(checked))

    async def _read_replicas(self, request: ReadingRequest) -> dict[str, list[RankReading]]:
        asked = [read_replica(replica.servers, request) for replica in self._replicas.values()]
        return dict(zip(self._replicas, await asyncio.gather(*asked), strict=True))

    def _show(self, reason: str) -> None:
        if reason not in self._shown:
            self._shown.add(reason)
            print(f"[{TRAINER_MODE}] weights unchecked after a sync: {reason}", flush=True)


def _count(checked: int, unchecked: int) -> dict[str, float]:
    return {
        "pipeline/weights/checked_tensors": float(checked),
        "pipeline/weights/unchecked_tensors": float(unchecked),
    }


def _find_obstacle(config: DictConfig, engine_class: type, is_observed: bool) -> str | None:
    """Why nothing can be compared in this run; None if something can."""
    if not is_observed:
        return f"the weight engine {engine_class.__name__} does not tell what it sends"
    name = config.actor_rollout_ref.rollout.name
    if name != "vllm":
        return f"{ROLLOUT}.name={name}: only vLLM tells what it holds"
    extension = OmegaConf.select(config, EXTENSION_FIELD)
    if extension != EXTENSION:
        return f"{EXTENSION_FIELD}={extension}: ours, which reads vLLM's weights, is not in place"
    return None


def _refuse_differences(comparisons: Mapping[str, Comparison], version: int) -> None:
    different = {name: entry.differences for name, entry in comparisons.items()}
    name = next((name for name, differences in different.items() if differences), None)
    if name is None:
        return
    others = [other for other, differences in different.items() if differences and other != name]
    shown = "; ".join(different[name][:SHOWN])
    rest = len(different[name]) - SHOWN
    raise WeightsDiffer(
        f"{name} does not hold v_{version} as the trainer sent it: {shown}"
        + (f"; and {rest} more" if rest > 0 else "")
        + (f". {', '.join(others)} differ too" if others else "")
        + f". It would sample with other weights than those that are trained: look at the weight "
        f"engine ({ROLLOUT}.checkpoint_engine) and at how the rollout engine loads this tensor; "
        f"{PIPELINE_KEY}.weight_check.fingerprint_syncs=0, with fingerprint_every=0, switches this "
        "off"
    )
