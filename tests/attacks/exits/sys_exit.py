# problem: sum
# Ends well before it has printed anything.
import sys

sys.exit(0)
