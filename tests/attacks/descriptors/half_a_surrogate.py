import os

os.write(3, b'["\\ud800\xff"]')
os._exit(0)
