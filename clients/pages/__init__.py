"""Offline HTML pages.

In: figures. Out: one file that opens without a server.
"""
