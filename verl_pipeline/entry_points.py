"""Which program runs: ours, verl's, or another that has nothing to do with us.

Invariant: imports nothing, since every Hydra program of the environment asks.
"""

import sys

# Entry points, with their primary configurations.
OUR_ENTRY, VERLS_ENTRY = "verl_pipeline.main", "verl.trainer.main_ppo"
PRIMARY = {OUR_ENTRY: "one_off_pipeline", VERLS_ENTRY: "ppo_trainer"}


def find_entry() -> str | None:
    """The name of the module that runs as a program, if it is an entry point of ours or verl's."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return spec.name if spec.name in PRIMARY else None
    # `python -c`, a notebook and a forked worker have no file.
    file = str(getattr(main, "__file__", None) or "")
    return next((name for name in PRIMARY if file.endswith(f"/{name.replace('.', '/')}.py")), None)
