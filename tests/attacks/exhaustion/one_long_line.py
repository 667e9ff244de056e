# problem: sum
# Two million numbers on one line, within the limit of output, for the judge to take apart.
import os

os.write(1, b"11 " * 2_000_000)
