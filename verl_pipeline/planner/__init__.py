"""The planner: will another schedule than `sync` pay, and with which split and staleness?

Pure: imports neither verl nor Ray nor torch. A profile describes a cluster and its work; a
discrete-event simulation runs every schedule on the same drawn lengths; the answer may be no.
"""
