"""Events and decisions: the store (the truth) and the history cache in front of it.

In: events and decisions. Out: histories. Redis and SQLAlchemy are imported here only.
"""
