"""Ends a program's process as CPython ends one.

Invariants:
* CPython itself joins the threads, calls the exit functions, flushes the streams, finalises all
  objects and decides on the exit code 120.
* Only the finalisation of objects may be left out, because in a warm interpreter it takes several
  times as long as a short program: it is left out if it could neither run code of the program nor
  write anything. When in doubt it takes place.
"""

import atexit
import contextlib
import ctypes
import gc
import io
import os
import sys
import types
import weakref

from exit_codes import NO_SYNTAX, RAISED

# Of CPython, for a KeyboardInterrupt that nobody caught, if it cannot end itself by the signal.
_INTERRUPTED = 130
# Their finalisation writes nothing.
_QUIET_STREAMS = (io.BytesIO, io.StringIO, io.FileIO, io.BufferedReader)
# Modules whose callbacks of weak references only remove entries of their own tables.
_QUIET_MODULES = ("_weakrefset", "weakref", "functools")
_finalize_and_exit = ctypes.pythonapi.Py_Exit
_flush_c_streams = ctypes.CDLL(None).fflush
_exit_code = None


def register_shortcut():
    """Let the processes forked from this one leave out a finalisation that would not be visible.

    Exit functions are called in reverse order, so this must be called before modules are imported
    that register some: then the shortcut is the last, and finds all threads joined.
    """
    atexit.register(_exit_if_finalization_is_invisible)


def end_process(code):
    """End this process with the exit code ``code``, or with 120 if its streams cannot be flushed.

    Does not return.
    """
    global _exit_code
    _exit_code = code & 0xFF
    _finalize_and_exit(code)


def compute_exit_code(error):
    """Return the exit code of a SystemExit that nobody caught; print its text if it has one."""
    code = error.code
    if code is None:
        return 0
    if isinstance(code, int):
        # CPython converts it to a C long; one that is too large becomes -1.
        return (code if -(1 << 63) <= code < 1 << 63 else -1) & 0xFF
    with contextlib.suppress(Exception):
        if sys.stderr is None:
            os.write(2, f"{code}\n".encode())
        else:
            print(code, file=sys.stderr)
    return 1


def report_exception(error):
    """Report an exception that nobody caught, without frames of the jail; return the exit code."""
    if isinstance(error, SystemExit):
        return compute_exit_code(error)
    folder = os.path.dirname(__file__) + os.sep
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(folder):
        trace = trace.tb_next
    error = error.with_traceback(trace)
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, trace
    try:
        sys.excepthook(type(error), error, trace)
    except SystemExit as exit_error:
        return compute_exit_code(exit_error)
    except BaseException as hook_error:
        with contextlib.suppress(BaseException):
            print("Error in sys.excepthook:", file=sys.stderr)
            sys.__excepthook__(type(hook_error), hook_error, hook_error.__traceback__)
            print("\nOriginal exception was:", file=sys.stderr)
            sys.__excepthook__(type(error), error, trace)
    if isinstance(error, KeyboardInterrupt):
        return _INTERRUPTED
    return NO_SYNTAX if trace is None and isinstance(error, SyntaxError) else RAISED


def _exit_if_finalization_is_invisible():
    if _exit_code is None:  # the server ends, or the program calls the exit functions itself
        return
    # If anything goes wrong, CPython's own finalisation meets it again, and treats it rightly.
    with contextlib.suppress(BaseException):
        if not _is_finalization_visible():
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
                stream.buffer.flush()
            _flush_c_streams(None)
            os._exit(_exit_code)


def _is_finalization_visible():
    """Whether finalising the program's objects could run its code or write anything.

    Objects of the warm interpreter do not count, nor do the standard streams: they are frozen.
    """
    if sys.stdout is not sys.__stdout__ or sys.stderr is not sys.__stderr__ or gc.callbacks:
        return True
    objects = gc.get_objects()
    suspects = {
        cls
        for cls in set(map(type, objects))
        if issubclass(cls, (type, weakref.ref)) or hasattr(cls, "__del__")
    }
    return any(map(_has_visible_end, [item for item in objects if type(item) in suspects]))


def _has_visible_end(item):
    cls = type(item)
    if issubclass(cls, type):  # an instance without attributes is unknown to the collector
        return "__del__" in vars(item)
    if issubclass(cls, weakref.ref):
        callback = item.__callback__
        return not (
            callback is None
            or isinstance(callback, types.BuiltinFunctionType)  # of abstract base classes
            or isinstance(callback, weakref.finalize)  # called by an exit function
            or callback.__module__ in _QUIET_MODULES
        )
    if cls is types.GeneratorType:
        # Its code may have to leave a `try` or `with`, or close another generator.
        return item.gi_suspended and bool(item.gi_code.co_exceptiontable or item.gi_yieldfrom)
    if cls is io.TextIOWrapper:
        return type(item.buffer) not in _QUIET_STREAMS
    return cls not in _QUIET_STREAMS
