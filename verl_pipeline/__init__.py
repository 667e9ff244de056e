"""One-off pipelined RL post-training as a plugin for stock verl.

Importing this package imports neither torch nor verl: verl loads it in every process it starts,
and a process that does not train must not pay for it.
"""

__version__ = "0.1.0"

__all__ = ["OneOffPipelineTrainer", "__version__"]


def __getattr__(name: str):
    if name == "OneOffPipelineTrainer":
        from verl_pipeline.verl_adapter.trainers.pipelined_trainer import OneOffPipelineTrainer

        return OneOffPipelineTrainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
