"""How good a model is, and how it should be served.

In: titles and targets. Out: HR, NDCG, intervals, the served mode. Imports `training.generation` and below.
"""
