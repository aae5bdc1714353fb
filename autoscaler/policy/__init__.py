"""YAML text to a validated model to the core's policy; every error with its file, line and column."""
