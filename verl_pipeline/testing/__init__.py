"""What tests, examples and benchmarks share: a tiny model with real engines, and seeded sampling."""
