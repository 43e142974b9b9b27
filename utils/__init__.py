"""The shared workings of the three notebooks; see the README's layout."""
