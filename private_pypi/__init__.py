"""A private Python package index over storage that you already have."""

__version__ = "1.0.0"
