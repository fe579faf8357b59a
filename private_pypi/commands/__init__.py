"""The commands. Each is a function that `cli` calls, and its docstring is its help."""
