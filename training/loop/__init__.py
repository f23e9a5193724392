"""The training loop, and a run from its data to a published adapter.

In: a recipe. Out: an adapter folder. It asks the recipe and knows no method by name; recipes never reach into it.
"""
