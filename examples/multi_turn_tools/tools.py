"""The tool of this example: arithmetic.

    actor_rollout_ref.rollout.multi_turn.function_tool_path=examples/multi_turn_tools/tools.py

Invariants:
* The model chooses the argument, so nothing of it is executed: only numbers and operators count.
* A wrong expression is an answer to the model, not a failed trajectory.
"""

import ast
import operator

from verl.tools.function_tool import function_tool

OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
}
LONGEST_EXPRESSION = 200


@function_tool
def calculate(expression: str) -> str:
    """Compute an arithmetic expression.

    Args:
        expression: Numbers, + - * / and parentheses, for example (3 + 4) * 2.
    """
    try:
        if len(expression) > LONGEST_EXPRESSION:
            raise ValueError("too long")
        return f"{compute(ast.parse(expression, mode='eval').body):g}"
    except (ArithmeticError, SyntaxError, TypeError, ValueError) as error:
        return f"error: {error}"


def compute(node: ast.AST) -> float:
    """The value of an expression's syntax tree.

    Raises:
        ValueError: something else than a number or an operator of :data:`OPERATORS`.
    """
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return float(node.value)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](compute(node.left), compute(node.right))
    if isinstance(node, ast.UnaryOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](compute(node.operand))
    raise ValueError("numbers, + - * / and parentheses only")
