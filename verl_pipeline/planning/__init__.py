"""``verl-pipeline plan``: where a profile comes from, and where the answer goes.

:mod:`.run_profile` makes a profile of what a run recorded, as :mod:`.recorded_steps` reads it;
:mod:`.decoding` measures how fast its replicas decoded, :mod:`.training_scaling` how training
speeds up with devices. Files and models are read by the planner itself. :mod:`.commands` is the
command, which prints the answer and writes it as JSON and as a page of the report layer.
"""
