"""Files of any known layout -> checked rows.

In: a path. Out: a catalog, a log of interactions or changes, and a file of rejected rows with reasons. Imports
`index.catalog`.
"""
