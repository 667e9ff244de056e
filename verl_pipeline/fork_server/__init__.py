"""Python processes that start with everything imported: one process imports, the others are forks.

A run on CPUs starts more than ten Python processes (Ray's workers, vLLM's engine and its worker),
and each spends 5 to 10 processor seconds importing torch, transformers, verl and vLLM. Here one
process imports them once (:mod:`.server`). Ray and ``multiprocessing`` are told to start a small
program instead of Python (:mod:`.launcher`), which has the server fork the process wanted.

Used for runs on CPUs only, where imports compete for few cores; a GPU node has many.

Invariants:
* A forked process has the arguments, environment, working directory, descriptors, signal mask and
  priority that it was asked for; it ends when whoever asked for it ends or is killed.
* What was imported before the fork does not depend on what may differ between the processes: a
  request whose environment differs in a variable that imports read starts a plain Python.
* Without a server, or if it fails, a plain Python is started: slower, never wrong.
* The server and its forks end with the process that started it.
"""
