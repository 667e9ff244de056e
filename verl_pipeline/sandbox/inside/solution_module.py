"""The module ``solution`` of tests that import the program.

Invariant: the module holds nothing of the program; each name is looked up in the program's process
when the tests ask for it.
"""

import types


class SolutionModule(types.ModuleType):
    """Stands for the program: ``import solution`` and ``from solution import name``."""

    def __init__(self, program):
        """``program`` is a :class:`.assert_runner.ProgramClient`."""
        super().__init__("solution")
        vars(self)["_program"] = program

    def __getattr__(self, name):
        if name == "__all__":
            return self._program.list_names()
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self._program.find_attribute(name)
        except NameError as error:
            raise AttributeError(f"module 'solution' has no attribute {name!r}") from error

    def __setattr__(self, name, value):
        self._program.send_request("set", None, name, value)
