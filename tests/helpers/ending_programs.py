"""Harmless programs whose output or exit status depends on streams or exit codes, by name.

Each is deterministic; none needs input.
"""

PROGRAMS_WITH_STREAMS = {
    "byte order mark": "\ufeffprint('x')",
    "names and modes": """
import sys
for stream in (sys.stdin, sys.stdout, sys.stderr):
    print(stream.name, stream.mode, stream.buffer.name)
""",
    "compressed": """
import gzip, sys
with gzip.GzipFile(fileobj=sys.stdout.buffer, mode='wb', mtime=0) as file:
    file.write(b'x')
""",
    "text wrapper of the buffer": """
import io, sys
out = io.TextIOWrapper(sys.stdout.buffer, encoding='utf-8')
out.write('text')
""",
    "wrapper beside print": """
import io, sys
print('first', flush=True)
out = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, 'w', closefd=False)))
out.write('second')
""",
    "text without a buffer": """
import io
out = io.TextIOWrapper(io.FileIO(1, 'w', closefd=False))
out.write('text')
""",
    "open(1)": "out = open(1, 'w', closefd=False)\nprint('x', file=out)",
    "open(1) that closes": "out = open(1, 'w')\nprint('x', file=out)\nprint('y')",
    "open(1) in a function": "def f():\n    print('x', file=open(1, 'w', closefd=False))\nf()",
    "fdopen": "import os\nout = os.fdopen(os.dup(1), 'w')\nout.write('x' * 100000)",
    "buffered writer": """
import io
out = io.BufferedWriter(io.FileIO(1, 'w', closefd=False))
out.write(b'x')
""",
    "buffer of stdout": "import sys\nsys.stdout.buffer.write(b'x')",
    "dev stdout": "out = open('/dev/stdout', 'a')\nout.write('x')",
    "__stdout__ after a replacement": """
import io, sys
sys.stdout = io.StringIO()
print('lost')
sys.__stdout__.write('kept')
""",
    "replaced and written back at exit": """
import atexit, io, sys
real, sys.stdout = sys.stdout, io.StringIO()
atexit.register(lambda: real.write(sys.stdout.getvalue()))
print('x')
""",
    "replaced by an object of its own": """
import sys
class Out:
    def __init__(self, file): self.file, self.parts = file, []
    def write(self, text): self.parts.append(text)
    def flush(self):
        self.file.write(''.join(self.parts)); self.parts.clear(); self.file.flush()
sys.stdout = Out(sys.stdout)
print('x')
""",
    "replaced by an IOBase": """
import io, os, sys
class Fast(io.IOBase):
    def __init__(self): self.buffer = io.BytesIO()
    def write(self, text): return self.buffer.write(text.encode())
    def flush(self):
        os.write(1, self.buffer.getvalue()); self.buffer.truncate(0); self.buffer.seek(0)
sys.stdout = Fast()
print('x')
""",
    "replaced, without flush": """
import sys
class Out:
    def write(self, text): sys.__stdout__.write(text)
sys.stdout = Out()
print('x')
""",
    "replaced, flush fails": """
import sys
class Out:
    def write(self, text): pass
    def flush(self): raise ValueError('no')
sys.stdout = Out()
""",
    "None": "import sys, os\nsys.stdout = None\nprint('x')\nos.write(1, b'y')",
    "all None": "import sys\nsys.stdin = sys.stdout = sys.stderr = None\nprint('x')",
    "stderr None and exit text": "import sys\nsys.stderr = None\nsys.exit('text')",
    "deleted": "import sys\ndel sys.stdout",
    "deleted with pending text": "import sys\nprint('x')\ndel sys.stdout, sys.__stdout__",
    "closed": "import sys\nprint('x')\nsys.stdout.close()",
    "closed stderr": "import sys\nprint('x')\nsys.stderr.close()",
    "closed and written": "import sys\nsys.stdout.close()\nprint('x')",
    "detached": "import sys\nprint('x', end='')\nout = sys.stdout.detach()\nout.write(b'y')",
    "descriptor closed": "import os\nos.close(1)",
    "descriptor closed with pending text": "import os\nprint('x')\nos.close(1)",
    "descriptor closed, exit 3": "import os, sys\nprint('x')\nos.close(1)\nsys.exit(3)",
    "broken pipe": """
import os
r, w = os.pipe()
os.dup2(w, 1); os.close(w); os.close(r)
print('x')
""",
    "full device": "import os\nos.dup2(os.open('/dev/null', os.O_RDONLY), 1)\nprint('x')",
    "reconfigured": "import sys\nsys.stdout.reconfigure(encoding='utf-16')\nprint('x')",
    "write_through": "import sys\nsys.stdout.reconfigure(write_through=True)\nprint('x')",
    "C stream": "import ctypes\nctypes.CDLL(None).puts(b'x')",
    "rebound twice": """
import io, sys
sys.stdout = sys.__stdout__ = io.TextIOWrapper(sys.stdout.detach(), line_buffering=False)
print('x')
""",
}

PROGRAMS_THAT_EXIT = {
    "exit()": "print('x')\nimport sys\nsys.exit()",
    "exit 0": "import sys\nsys.exit(0)",
    "exit 3": "import sys\nsys.exit(3)",
    "exit 256": "import sys\nsys.exit(256)",
    "exit -1": "import sys\nsys.exit(-1)",
    "exit True": "import sys\nsys.exit(True)",
    "exit huge": "import sys\nsys.exit(1 << 70)",
    "exit text": "import sys\nsys.exit('text')",
    "exit float": "import sys\nsys.exit(0.0)",
    "exit tuple": "import sys\nsys.exit((1, 2))",
    "exit by class": "raise SystemExit",
    "exit in a call": "def f():\n    try:\n        exit(4)\n    finally:\n        print('x')\nf()",
    "exit in a thread": """
import sys, threading
threading.Thread(target=sys.exit, args=(3,)).start()
""",
    "exit at exit": "import atexit, sys\natexit.register(sys.exit, 3)\nprint('x')",
    "_exit": "import os\nprint('lost')\nos._exit(5)",
    "_exit at exit": "import atexit, os\natexit.register(os._exit, 6)\nprint('x', flush=True)",
    "_exit in __del__": """
import os
class A:
    def __del__(self): os._exit(7)
a = A()
""",
    "abort": "import os\nos.abort()",
    "killed": "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)",
    "handled signal": """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(8))
os.kill(os.getpid(), signal.SIGTERM)
""",
    "signal at exit": """
import atexit, os, signal
signal.signal(signal.SIGUSR1, lambda *_: print('handled'))
atexit.register(os.kill, os.getpid(), signal.SIGUSR1)
""",
    "exception": "print('x')\n1 / 0",
    "exception group": "raise ExceptionGroup('g', [ValueError(1), TypeError(2)])",
    "exception that cannot print": """
class E(Exception):
    def __str__(self): raise ValueError
raise E
""",
    "deep exception": "import sys\ndef f(): f()\nsys.setrecursionlimit(5000)\nf()",
    "excepthook": "import sys\nsys.excepthook = lambda *a: print('hook', a[0].__name__)\n1 / 0",
    "excepthook exits": "import sys\nsys.excepthook = lambda *a: sys.exit(9)\n1 / 0",
    "excepthook fails": "import sys\nsys.excepthook = lambda *a: [][1]\n1 / 0",
    "last_value": """
import atexit, sys
atexit.register(lambda: print(sys.last_value, sys.last_type.__name__))
1 / 0
""",
    "interrupted": "raise KeyboardInterrupt",
    "syntax": "def f(:",
}
