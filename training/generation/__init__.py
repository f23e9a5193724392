"""Titles out of a model.

In: prompts. Out: titles with log-probabilities: greedy, beams, samples, inside the catalog. Imports `training.model`
and `training.data`.
"""
