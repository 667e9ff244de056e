"""When a context manager of the program may hide an error from the tests.

A context may hide what its block raises. A wrong program could do so to hide failed checks, or to
skip those that follow.

Invariant: an error is hidden only if the statement that raised it checks nothing and is the last
one of its block, so that no check is skipped.
"""

import ast


def skips_no_check(source, line):
    """Whether no check of the tests is skipped if the error of ``line`` in a block is hidden."""
    contexts = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.With)]
    around = [node for node in contexts if node.lineno <= line <= node.end_lineno]
    return all(_is_last(node.body[-1], line) for node in around)


def _is_last(statement, line):
    has_check = any(isinstance(node, ast.Assert) for node in ast.walk(statement))
    return statement.lineno <= line and not has_check
