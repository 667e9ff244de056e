"""Reads a pytest file without importing it: what pytest would collect, and what cannot work."""
