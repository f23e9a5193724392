"""Requests: from a history to ranked items that say how they were found.

Layers, the lowest first: the light modules, `experiments`, `engine`, `adapters`, `snapshots`, `events`, then
`recommender`, `service`, `http`. It imports `index`, and from `training` only what training publishes.
"""
