import os

os.execv("/usr/bin/true", ["true"])
