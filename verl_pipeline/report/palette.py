"""Names and colours of what pools do and graders say; one colour a meaning, in all charts.

Invariant: each colour has a contrast of at least 3 to 1 against the page's light and dark ground.
"""

# By the name of a span (``records.Span``), of a second of a bill (``states.STATES``) or a verdict:
# what people read, and its colour. Work is cool, what moves or checks data is in between, waits are
# warm; verdicts that say nothing of the answer are grey.
_KINDS = {
    "update_actor": ("update of the policy", "#3d7fc7"),
    "update": ("update", "#3d7fc7"),
    "update_critic": ("update of the critic", "#7a68c9"),
    "old_log_prob": ("old log-probs", "#2f95a3"),
    "ref": ("reference model", "#5a9a4e"),
    "values": ("values", "#8f7a5c"),
    "adv": ("advantages", "#7d8894"),
    "advantage": ("advantages", "#7d8894"),
    "generating": ("generating", "#2c9a6c"),
    "generate": ("generating", "#2c9a6c"),
    "gen": ("generating", "#2c9a6c"),
    "tail": ("tail of generation", "#7f9430"),
    "reward": ("reward", "#b8639b"),
    "busy": ("grading", "#b8639b"),
    "update_weights": ("weight sync", "#a97a12"),
    "weight_sync": ("weight sync", "#a97a12"),
    "load_weights": ("loading weights", "#a97a12"),
    "lost": ("lost", "#6b6f76"),
    "save_checkpoint": ("checkpoint", "#9a63b5"),
    "checkpoint": ("checkpoint", "#9a63b5"),
    "testing": ("validation", "#4d8f8f"),
    "validate": ("validation", "#4d8f8f"),
    "switch": ("switching the devices", "#6f8596"),
    "start": ("start", "#7a7f99"),
    "other": ("other", "#87909a"),
    "down": ("not running", "#6b6f76"),
    "wait_rollout": ("waiting for rollouts", "#d9534f"),
    "wait_trainer": ("waiting for the trainer", "#d9534f"),
    "draining": ("running empty before a load", "#c0685f"),
    "dispatch": ("waiting for the dispatcher", "#b8503a"),
    "wait_reward": ("waiting for rewards", "#e0703a"),
    "wait_data": ("waiting for data", "#b8604a"),
    "idle": ("idle", "#9c8f8a"),
    "accepted": ("accepted", "#2c9a6c"),
    "wrong_answer": ("wrong answer", "#d0702b"),
    "time_limit": ("time limit", "#7a68c9"),
    "memory_limit": ("memory limit", "#b8639b"),
    "output_limit": ("output limit", "#2f95a3"),
    "runtime_error": ("runtime error", "#3d7fc7"),
    "no_code": ("no code", "#8f7a5c"),
    "compile_error": ("compile error", "#a97a12"),
    "infrastructure": ("infrastructure", "#6b6f76"),
    "ungraded": ("ungraded", "#7d8894"),
}
_SPARE = ("#5f7fb5", "#8a8a2f", "#a8704a", "#4f8f6f", "#9b6fa8", "#b06a6a")
NOT_ACCEPTED, REFERENCE = "#d0702b", "#7d8894"
RUNS = ("#3d7fc7", "#d0702b", "#2c9a6c", "#b8639b", "#7a68c9", "#8f7a5c")
TRAJECTORY = "#2c9a6c"
# Of weights in turn, so that a change shows.
VERSIONS = ("#2c9a6c", "#2f95a3", "#7f9430")
FATES = {
    "trained": "#2c9a6c",
    "filtered": "#a97a12",
    "failed": "#d9534f",
    "waiting": "#8f7a5c",
    "queued": "#9b6fa8",
    "running": "#3d7fc7",
    "validation": "#7d8894",
}


def label_name(name: str) -> str:
    """Return what people read for the name of a span or share."""
    return _KINDS[name][0] if name in _KINDS else name.replace("_", " ")


def choose_colour(name: str) -> str:
    """Return the colour of a name, as ``#rrggbb``; an unknown name always gets the same one."""
    if name in _KINDS:
        return _KINDS[name][1]
    if name.startswith("wait"):
        return _KINDS["wait_rollout"][1]
    return _SPARE[sum(map(ord, name)) % len(_SPARE)]


def sort_names(names: set[str]) -> list[str]:
    """Return names in the order of the table above: work first, waits last."""
    order = {name: place for place, name in enumerate(_KINDS)}
    return sorted(names, key=lambda name: (order.get(name, order["start"]), name))
