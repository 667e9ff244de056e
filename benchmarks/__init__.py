"""Benchmarks with real engines: ``python -m benchmarks.<name>`` from the repository's folder."""
