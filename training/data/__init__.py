"""Log -> windows -> samples.

In: a workspace and settings. Out: a `Dataset` whose windows can be learned from, split by time. Imports
`training.model` for samples.
"""
