"""SFT: the true next title, and nothing else.

In: a run. Out: an adapter without parents. `method.py` is light; `recipe.py` imports torch.
"""
