"""What the shop offers, and how that changes.

In: items and changes of them. Out: an immutable `Catalog`, its rows, a journal of changes. Imports the light modules
of `index` only.
"""
