"""What an item's id and title must be, at every door: an imported file, a change, a request."""

from __future__ import annotations

import unicodedata

from index.catalog.catalog import normalise_title
from index.limits import MAX_ID_CHARACTERS, MAX_TITLE_CHARACTERS


def clean_title(text: str) -> str:
    """Remove control characters and surplus white space; a tab or a line break counts as a space.

    Example:
        >>> clean_title(" The\\x00 Fifth\\n Element ")
        'The Fifth Element'
    """
    if not text.isprintable():
        text = "".join(char for char in text if char.isspace() or unicodedata.category(char) not in ("Cc", "Cs"))
    return " ".join(text.split())


def fault_of_id(item_id: str) -> str:
    """Return why this is not a valid item id, or ""."""
    if not item_id:
        return "empty item_id"
    return f"item_id over {MAX_ID_CHARACTERS} characters" if len(item_id) > MAX_ID_CHARACTERS else ""


def fault_of_title(title: str) -> str:
    """Return why this, once cleaned, is not a valid title, or ""."""
    if not normalise_title(title):
        return "empty title"
    return f"title over {MAX_TITLE_CHARACTERS} characters" if len(title) > MAX_TITLE_CHARACTERS else ""
