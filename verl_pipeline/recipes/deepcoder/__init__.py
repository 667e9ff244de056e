"""The DeepCoder recipe (Agentica and Together AI, April 2025), from data sets to a model card."""
