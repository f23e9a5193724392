"""Items and the search that ties text to them."""
