"""Writing titles: how fast and how well."""
