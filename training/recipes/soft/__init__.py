"""SOFT (arXiv:2505.20771): self-distilled titles first, true titles at the pace of learning.

In: an SFT adapter. Out: a SOFT adapter, its distilled titles and curriculum. `method.py` and `settings.py` are light.
"""
