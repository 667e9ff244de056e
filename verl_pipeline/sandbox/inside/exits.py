"""Exit codes by which a run says how it ended; a program that forges one gains another way to fail."""

PASSED = 0
RAISED = 1
NO_SYNTAX = 94
PROGRAM_RAISED = 95
NO_FUNCTION = 96
NO_VALUE = 97
PROGRAM_ENDED = 98
TESTS_LACK_A_MODULE = 99
