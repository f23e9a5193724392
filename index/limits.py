"""How long an id and a title may be, in files and on the wire. Alone in its module: the client imports it too."""

MAX_ID_CHARACTERS = 256
MAX_TITLE_CHARACTERS = 1000
