"""People: the command line, the HTTP client, batches, pages.

Layers, the lowest first: the light modules, `http`, `pages`, `batch`, `commands`, the command line. It may import
every room.
"""
