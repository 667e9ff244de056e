"""A checkpoint callback that stops the run once the checkpoint is written."""


class StopAfterSave:
    def __init__(self, config):
        pass

    def on_save(self, **_kwargs):
        raise RuntimeError("planted stop after the checkpoint")
