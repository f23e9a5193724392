"""Requests: from a history to ten items that say how they came about.

Layers, the lowest first: the light modules, `experiments`, `engine`, `adapters`, `snapshots`, `events`, then
`recommender`, `service`, `http`. It imports `index`, and of `training` what it publishes.
"""
