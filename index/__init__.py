"""Items, and the search that ties text to them.

In: a shop's files and texts. Out: a checked catalog, an index, ranked rows. Layers, the lowest first: the five light
modules of this folder, `catalog`, `tables`, `search` and `titles`, `ranking`, `live`. It imports no other room.
"""
