"""Checkpoint callbacks that stop the run once a checkpoint is written."""

import os
from pathlib import Path

# Names the file that StopWhenAsked waits for.
STOP = "VERL_PIPELINE_STOP"


class StopAfterSave:
    """Stops after the first checkpoint."""

    def __init__(self, config):
        pass

    def on_save(self, **_kwargs):
        raise RuntimeError("planted stop after the checkpoint")


class StopWhenAsked(StopAfterSave):
    """Stops after the first checkpoint once a file is there."""

    def on_save(self, **kwargs):
        if Path(os.environ[STOP]).exists():
            super().on_save(**kwargs)
