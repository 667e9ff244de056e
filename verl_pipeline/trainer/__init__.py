"""Decisions of the pipelined trainer: schedule, keys, batch checks, filters, settings. No verl."""
