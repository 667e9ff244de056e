# problem: split
# Nothing where a checker expects two numbers.
