"""What users did: the store, which is the truth, and the cache in front of it.

In: events and decisions. Out: histories. Redis and SQLAlchemy are imported here only.
"""
