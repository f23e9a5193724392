"""Training measured against the plain way of doing the same: `python -m benchmarks.training.step`, `.distill`."""
