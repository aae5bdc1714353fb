"""Golden images: what has to be right with one before clones are made of it."""
