"""The catalog's titles as token tries, and beam search inside them.

In: titles as token ids. Out: which tokens may follow, and the best titles. Imports `index.catalog`; knows no model.
"""
