"""What the trainer decides: schedule, keys, checks of a batch, settings. Imports no verl."""
