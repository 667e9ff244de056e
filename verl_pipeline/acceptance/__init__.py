"""``verl-pipeline doctor --run``: three steps of a tiny model on the user's own settings."""
