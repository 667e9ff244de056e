"""Measurements of real engines; each is run as ``python -m benchmarks.<name>`` from the
repository's folder.
"""
