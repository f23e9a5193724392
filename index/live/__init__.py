"""The index under changes.

In: versions on disk and changes of the catalog. Out: one immutable snapshot at a time. The top layer of `index`; it
may import all of it.
"""
