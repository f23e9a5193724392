"""Measurements. Every module runs as `python -m benchmarks.…` and ends with one JSON line of its figures."""
