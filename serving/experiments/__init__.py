"""Sticky assignment of users to the arms of an experiment.

In: a user id and weights. Out: an arm. Imports nothing but errors.
"""
