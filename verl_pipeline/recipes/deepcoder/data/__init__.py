"""Preparation of verified training data from raw problem sets, one module per stage."""
