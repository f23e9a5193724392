"""Titles that a model wrote -> ranked rows.

In: texts with log-probabilities. Out: rows by distance, likelihood or both. Imports `index.search` and
`index.catalog`.
"""
