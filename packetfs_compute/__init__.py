"""Compute on bytes without downloading them: tiny operations over byte ranges, run where they cost least."""

__all__ = ["__version__"]

__version__ = "0.1.0"
