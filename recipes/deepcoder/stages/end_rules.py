"""When a stage ends. Pure: steps and metrics go in, a reason comes out.

Invariants:
* Only steps of the stage itself count, and only when it has trained as many as the rule's windows
  need.
* A step whose metrics a kill has lost is left out of its window's mean; a window without any
  decides nothing.
"""

from collections.abc import Mapping

from recipes.deepcoder.stages.stage_config import TRUNCATED_SHARE, Stage

Metrics = Mapping[int, Mapping[str, float]]


def ended(stage: Stage, metrics: Metrics, first_step: int, step: int) -> str | None:
    """Why the stage ends with the checkpoint of ``step``; None: it goes on.

    Args:
        metrics: by global step.
        first_step: global steps before the stage began.
    """
    if step >= stage.last_step:
        return f"last_step {stage.last_step}"
    share, plateau = stage.until.truncated_share, stage.until.plateau
    if share is not None:
        mean = _mean(metrics, TRUNCATED_SHARE, first_step, step, share.window)
        if mean is not None and share.above is not None and mean > share.above:
            return f"truncated_share {mean:.3f} above {share.above} (mean of {share.window} steps)"
        if mean is not None and share.below is not None and mean < share.below:
            return f"truncated_share {mean:.3f} below {share.below} (mean of {share.window} steps)"
    if plateau is not None:
        now = _mean(metrics, plateau.metric, first_step, step, plateau.window)
        before = _mean(metrics, plateau.metric, first_step, step - plateau.window, plateau.window)
        if now is not None and before is not None and now - before < plateau.gain:
            return (
                f"plateau: {plateau.metric} {before:.4g} -> {now:.4g}, a gain below {plateau.gain} "
                f"(means of {plateau.window} steps)"
            )
    return None


def needed(stage: Stage) -> list[str]:
    """Metrics that the stage's rules read."""
    until = stage.until
    return [TRUNCATED_SHARE] * (until.truncated_share is not None) + (
        [until.plateau.metric] if until.plateau is not None else []
    )


def _mean(metrics: Metrics, name: str, first_step: int, step: int, window: int) -> float | None:
    """Mean over steps ``step - window + 1`` to ``step``; None if the stage has not trained them
    all.
    """
    if step - window < first_step:
        return None
    steps = range(step - window + 1, step + 1)
    values = [metrics[k][name] for k in steps if k in metrics and name in metrics[k]]
    return sum(values) / len(values) if values else None
