"""``verl-pipeline plan``: where a profile comes from, and where the answer goes.

:mod:`.run_profile` makes a profile of what a run recorded, :mod:`.decoding` measures how fast its
replicas decoded; files and models are read by the planner itself. :mod:`.commands` is the command,
which prints the answer and writes it as JSON and as a page of the report layer.
"""
