"""The language model: batches in, log-probabilities and losses out.

In: samples of token ids. Out: exact log-probabilities of completions. Imports the light modules of `training` only.
"""
