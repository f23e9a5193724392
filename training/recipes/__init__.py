"""The training methods, one folder each, listed in `methods.py`; and the stand-in base.

In: a run. Out: what an update learns. Imports `training.loop` and below; nothing below imports a recipe.
"""
