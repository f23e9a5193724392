"""One state of the catalog per request.

In: the live index. Out: what may be recommended, known histories, changes of items.
"""
