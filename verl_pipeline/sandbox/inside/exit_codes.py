"""Exit codes that say how a run ended; a program that forges one only gains another failure."""

PASSED = 0
RAISED = 1
TESTS_CANNOT_CROSS = 93
NO_SYNTAX = 94
PROGRAM_RAISED = 95
NO_FUNCTION = 96
NO_VALUE = 97
PROGRAM_ENDED = 98
TESTS_LACK_A_MODULE = 99
TESTS_ARE_BROKEN = 100
# No answer of a program can cause these.
FAULTS_OF_TESTS = (TESTS_CANNOT_CROSS, TESTS_LACK_A_MODULE, TESTS_ARE_BROKEN)
