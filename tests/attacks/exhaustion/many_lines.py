# problem: sum
# A million lines, within the limit of output, for the judge to take apart.
import os

os.write(1, b"1\n2 " * 1_000_000)
