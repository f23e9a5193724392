"""Proof of the served adapters, and the choice of the one that answers.

In: adapter folders and an engine. Out: proven adapters, one arm per request.
"""
