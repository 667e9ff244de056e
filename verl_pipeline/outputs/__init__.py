"""The one door through which commands write files.

:mod:`.folders` claims an output folder for a command, :mod:`.files` replaces whole files and
appends records, :mod:`.named_file` is what they write with, and :mod:`.errors` says what to do if
the system refuses.

Invariants:
* A command writes neither to its inputs, by whatever name they are reached, nor to a file or folder
  that is not its own; the error says what was found there.
* A file is replaced as a whole or not at all. A file of records keeps all complete records: only
  the unfinished end of the command's own records is ever cut.
* An error of the system (full disk, missing permission, a folder where a file should be) is an
  :class:`.errors.OutputError`, which names the file.
"""
