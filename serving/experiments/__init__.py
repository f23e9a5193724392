"""Who sees what: sticky assignment of users to arms.

In: a user id and weights. Out: an arm. Imports nothing but errors.
"""
