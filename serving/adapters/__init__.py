"""Adapters that have proved themselves, and which one answers.

In: adapter folders and an engine. Out: proven adapters, one arm per request.
"""
