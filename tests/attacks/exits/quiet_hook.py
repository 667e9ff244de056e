# problem: yes_no
# Fails with a hook that swallows the error and ends well.
import os
import sys

sys.excepthook = lambda *error: os._exit(0)
raise ValueError("wrong")
