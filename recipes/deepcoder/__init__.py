"""DeepCoder (Agentica and Together AI, April 2025), from raw problem sets to an evaluated
checkpoint.
"""
