"""Harmless programs with objects, threads or processes that are left at their end, by name.

Each is deterministic; none needs input.
"""

_NOISY = "class Noisy:\n    def __init__(self, n): self.n = n\n"
_NOISY += "    def __del__(self): print('del', self.n)\n"

PROGRAMS_WITH_FINALISERS = {
    "__del__ of a global": _NOISY + "a = Noisy(1)\nb = Noisy(2)",
    "__del__ in a cycle": _NOISY + "a = Noisy(1)\na.self = a\ndel a",
    "__del__ of a function's globals": _NOISY + "a = Noisy(1)\ndef f(): return a\nb = Noisy(2)",
    "__del__ in an imported module": _NOISY + "import math\nmath.own = Noisy(1)",
    "__del__ in builtins": _NOISY + "import builtins\nbuiltins.own = Noisy(1)",
    "__del__ in a class": _NOISY + "class A:\n    noisy = Noisy(1)",
    "__del__ in a default": _NOISY + "def f(x=Noisy(1)): pass",
    "__del__ in a closure": _NOISY + "def f():\n    x = Noisy(1)\n    return lambda: x\ng = f()",
    "__del__ held by a traceback": _NOISY + "def f():\n    x = Noisy(1)\n    1 / 0\nf()",
    "__del__ after exit": _NOISY + "import sys\na = Noisy(1)\nsys.exit(3)",
    "__del__ that fails": "class A:\n    def __del__(self): 1 / 0\na = A()",
    "__del__ in slots": "class A:\n    __slots__ = ()\n    def __del__(self): print(1)\na = A()",
    "__del__ of a subclass of int": "class A(int):\n    def __del__(self): print(1)\na = A(1)",
    "__del__ of a class": """
class Meta(type):
    def __del__(self): print('class gone')
class A(metaclass=Meta): pass
""",
    "__del__ that imports": """
class A:
    def __del__(self):
        import json
        print(json.dumps([1]))
a = A()
""",
    "module of its own": """
import sys, types
m = types.ModuleType('own')
exec("class A:\\n    def __del__(self): print('x')\\na = A()", vars(m))
sys.modules['own'] = m
del m
""",
    "generator": "def g():\n    try: yield\n    finally: print('end')\nx = g()\nnext(x)",
    "generator with": """
import contextlib
@contextlib.contextmanager
def c():
    yield
    print('not')
class W:
    def __enter__(self): pass
    def __exit__(self, *a): print('left')
def g():
    with W(): yield
x = g()
next(x)
y = c()
y.__enter__()
""",
    "generator delegates": """
def g():
    try: yield
    finally: print('inner')
def h(): yield from g()
x = h()
next(x)
""",
    "generator delegates to an object": """
class I:
    def __iter__(self): return self
    def __next__(self): return 1
    def close(self): print('closed')
def h(): yield from I()
x = h()
next(x)
""",
    "generator not started": "def g():\n    try: yield\n    finally: print('end')\nx = g()",
    "coroutine": """
class A:
    def __await__(self):
        try: yield
        finally: print('end')
async def f(): await A()
c = f()
c.send(None)
""",
    "weakref callback": """
import weakref
class A: pass
a = A()
r = weakref.ref(a, lambda r: print('gone'))
""",
    "weakref callback of a method": """
import weakref
class A: pass
class B:
    def gone(self, r): print('gone')
a, b = A(), B()
r = weakref.ref(a, b.gone)
""",
    "weakref.finalize": """
import weakref
class A: pass
a = A()
weakref.finalize(a, print, 'gone')
f = weakref.finalize(a, print, 'never')
f.atexit = False
""",
    "gc callbacks": "import gc\ngc.callbacks.append(lambda p, i: print('gc', p))",
    "unraisable hook": """
import sys
sys.unraisablehook = lambda u: print('hook', u.exc_type.__name__)
class A:
    def __del__(self): 1 / 0
a = A()
""",
}

PROGRAMS_WITH_EXIT_FUNCTIONS = {
    "atexit order": "import atexit\nfor i in range(3): atexit.register(print, i)",
    "atexit nested": "import atexit\natexit.register(lambda: atexit.register(print, 'x'))",
    "atexit fails": "import atexit\natexit.register(print, 'x')\natexit.register(lambda: 1 / 0)",
    "atexit after an exception": "import atexit\natexit.register(print, 'x')\n1 / 0",
    "atexit unregistered": "import atexit\natexit.register(print)\natexit.unregister(print)",
    "atexit cleared": "import atexit\natexit.register(print)\natexit._clear()\nprint('x')",
    "atexit called early": "import atexit\natexit.register(print, 'x')\natexit._run_exitfuncs()",
    "atexit joins": """
import atexit, threading
def f():
    t = threading.Thread(target=print, args=('x',)); t.start(); t.join()
atexit.register(f)
""",
    "atexit imports": "import atexit\natexit.register(lambda: print(__import__('json').dumps(1)))",
    "exit stack": "import contextlib\ns = contextlib.ExitStack()\ns.callback(print, 'never')",
    "temporary folder": """
import atexit, os, tempfile
d = tempfile.TemporaryDirectory()
atexit.register(lambda: print(os.path.isdir(d.name)))
""",
    "logging": """
import logging, logging.handlers, sys
out = logging.StreamHandler(sys.stdout)
logging.getLogger().addHandler(logging.handlers.MemoryHandler(9, target=out))
logging.getLogger().error('x')
""",
}

PROGRAMS_WITH_THREADS = {
    "thread outlives main": """
import threading, time
def f():
    time.sleep(0.05); print('thread')
threading.Thread(target=f).start()
print('main')
""",
    "thread after an exception": """
import threading, time
threading.Thread(target=lambda: (time.sleep(0.05), print('thread'))).start()
1 / 0
""",
    "thread fails": "import threading\nthreading.Thread(target=lambda: 1 / 0).start()",
    "thread starts a thread": """
import threading, time
def f(n):
    time.sleep(0.01); print(n)
    if n: threading.Thread(target=f, args=(n - 1,)).start()
threading.Thread(target=f, args=(3,)).start()
""",
    "thread hook": """
import threading
threading.excepthook = lambda a: print('hook', a.exc_type.__name__)
threading.Thread(target=lambda: 1 / 0).start()
""",
    "daemon thread": """
import threading, time
threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
print('x')
""",
    "daemon thread and __del__": _NOISY
    + """
import threading, time
a = Noisy(1)
threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
""",
    "low-level thread": """
import _thread, time
_thread.start_new_thread(time.sleep, (30,))
print('x')
""",
    "timer": "import threading\nthreading.Timer(0.05, print, ('x',)).start()",
    "pool of threads": """
import concurrent.futures, time
pool = concurrent.futures.ThreadPoolExecutor(2)
for i in range(4): pool.submit(lambda i=i: (time.sleep(0.02 * (i + 1)), print(i)))
print('main')
""",
    "thread ends the process": """
import os, threading, time
threading.Thread(target=lambda: (time.sleep(0.05), os._exit(4))).start()
""",
    "asyncio": "import asyncio\nasync def f(): print('x')\nasyncio.run(f())",
    "asyncio task left": """
import asyncio
async def g():
    try: await asyncio.sleep(30)
    finally: print('cancelled')
async def f():
    t = asyncio.create_task(g()); await asyncio.sleep(0); print('x')
asyncio.run(f())
""",
}

PROGRAMS_WITH_PROCESSES = {
    "forked child": """
import os
if os.fork() == 0:
    print('child')
else:
    os.wait(); print('parent')
""",
    "forked child exits": """
import atexit, os, sys
atexit.register(print, 'end')
if (pid := os.fork()) == 0: sys.exit(3)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
""",
    "forked child with pending text": """
import os
print('x')
if os.fork(): os.wait()
""",
    "forked child and __del__": _NOISY + "import os\na = Noisy(1)\nif os.fork(): os.wait()",
    "multiprocessing": """
import multiprocessing
p = multiprocessing.get_context('fork').Process(target=print, args=('child',))
p.start(); p.join(); print(p.exitcode)
""",
    "multiprocessing not joined": """
import multiprocessing, time
def f():
    time.sleep(0.05); print('child', flush=True)
multiprocessing.get_context('fork').Process(target=f).start()
print('main', flush=True)
""",
    "daemonic child": """
import multiprocessing, time
p = multiprocessing.get_context('fork').Process(target=time.sleep, args=(30,), daemon=True)
p.start(); print('x')
""",
    "subprocess": "import subprocess\nprint('a', flush=True)\nsubprocess.run(['echo', 'b'])",
    "subprocess left": "import subprocess\np = subprocess.Popen(['sleep', '30'])\nprint('x')",
    "subprocess with a pipe": """
import subprocess
p = subprocess.Popen(['cat'], stdin=subprocess.PIPE, text=True)
p.stdin.write('x'); p.stdin.close(); p.wait()
""",
}
