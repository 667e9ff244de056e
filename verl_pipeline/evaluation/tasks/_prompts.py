"""Prompts and sampling parameters that tasks share.

The prompts equal those of the published scores word for word, since scores depend on them.
"""

from verl_pipeline.evaluation.task import SamplingParameters

# EvalPlus 0.3 (evalplus/codegen.py): instruction, and prefill for models that do not think.
SELF_CONTAINED_INSTRUCTION = (
    "Please provide a self-contained Python script that solves the following problem in a markdown "
    "code block:"
)
SELF_CONTAINED_PREFILL = (
    "Below is a Python script with a self-contained function that solves the problem and passes "
    "corresponding tests:\n```python\n"
)
# LiveCodeBench (lcb_runner/prompts/code_generation.py), in rLLM's form: one message, no system
# prompt.
EXPERT_INSTRUCTION = (
    "You are an expert Python programmer. You will be given a question (problem specification) and "
    "will generate a correct Python program that matches the specification and passes all "
    "tests.\n\n"
)
STDIN_FORMAT = (
    "### Format: Read the inputs from stdin solve the problem and write the answer to stdout (do "
    "not directly test on the sample inputs). Enclose your code within delimiters as follows. "
    "Ensure that when the python program runs, it reads the inputs, runs the algorithm and writes "
    "output to STDOUT.\n```python\n# YOUR CODE HERE\n```\n\n"
)
STARTER_FORMAT = (
    "### Format: You will use the following starter code to write the solution to the problem and "
    "enclose your code within delimiters.\n```python\n{starter}\n```\n\n"
)
ANSWER_FORMAT = "### Answer: (use the provided format with backticks)\n\n"
CODE_PREFILL = "```python\n"
# DeepSeek-R1's README, usage recommendations.
BOXED_INSTRUCTION = "\n\nPlease reason step by step, and put your final answer within \\boxed{}."

# As in the evaluations of DeepSeek-R1 (README) and DeepCoder (rLLM's scripts/eval).
REASONING_SAMPLING = SamplingParameters(n=1, temperature=0.6, top_p=0.95, max_tokens=32768)


def fence_program(program: str) -> str:
    """Return a response that consists of the program in a code block."""
    return f"```python\n{program.rstrip()}\n```"
