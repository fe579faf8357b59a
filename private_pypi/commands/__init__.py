"""The commands: plain functions that `cli` binds; their docstrings are their helps."""
