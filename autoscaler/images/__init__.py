"""Golden images: what has to be right with one before clones are made of it, and what makes each clone its own."""
