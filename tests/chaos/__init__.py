"""Killing things in the middle of work; `make chaos` runs the long version."""
