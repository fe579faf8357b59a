"""Helpers for threads, processes and files, independent of packages and indexes."""
