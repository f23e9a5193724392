"""Learning: from a log to an adapter that has proved itself.

What this folder's own modules hold is light and published to other rooms. Layers, the lowest first: `model`, `data`,
`parallel`, `generation`, `measure` and `report`, `loop`, `recipes`, `preflight`. It imports `index` only.
"""
