"""What became of the run's prompts, as a table.

Invariant: the counts are those of :func:`.ledger.check_ledger`; prompts that are lost, short or
doubled are named, at most :data:`MAX_NAMED` of each kind.
"""

from typing import Any

from verl_pipeline.telemetry.ledger import STATES, check_ledger
from verl_pipeline.telemetry.run_folder import Run

MAX_NAMED = 10
_MEANINGS = {
    "trained": "part of an update",
    "filtered": "left the batch before the update",
    "failed": "the infrastructure failed; no reward, no update",
    "graded": "has a reward; its step is not over",
    "generated": "has no reward yet",
    "begun": "was being generated when the records end",
    "started": "was being generated, or waited for its place, when the records end",
    "submitted": "a prompt whose trajectories have not begun",
}


def show_ledger(run: Run) -> dict[str, Any]:
    """Return what the template shows of the ledger: ``ledger`` and ``ledger_notes``."""
    check = check_ledger(run)
    rows = [("trajectories", check.trajectories, f"of {check.prompts:,} prompts, no validations")]
    rows += [(state, check.states.get(state, 0), _MEANINGS[state]) for state in STATES]
    rows += [("left over", check.left_over, "sampled ahead; the run ended before it used them")]
    shown = [
        {"name": name, "count": f"{count:,}", "meaning": meaning}
        for name, count, meaning in rows
        if count
    ]
    problems = {
        "lost: neither trained nor filtered nor failed, though their step is over": [
            str(name) for name in check.lost["prompt"].slice(0, MAX_NAMED).to_pylist()
        ],
        "doubled: trained twice, or trained and filtered": [
            str(name) for name in check.doubled["prompt"].slice(0, MAX_NAMED).to_pylist()
        ],
        "short: their group lacks trajectories": [name for name, _ in check.short[:MAX_NAMED]],
    }
    counts = (check.lost.num_rows, check.doubled.num_rows, len(check.short))
    notes = [
        f"{count:,} {kind}: {', '.join(names)}{', ...' * (count > len(names))}"
        for count, (kind, names) in zip(counts, problems.items(), strict=True)
        if count
    ]
    sound = "Nothing is missing or doubled."
    return {"ledger": shown, "ledger_notes": notes or [sound], "ledger_is_sound": check.is_sound}
