"""Offline scoring that resumes.

In: a file of users. Out: a Parquet file of recommendations and a file of rejects.
"""
