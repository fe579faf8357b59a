"""The configuration of a server: reading it, checking it, and storing it in ROOT."""
