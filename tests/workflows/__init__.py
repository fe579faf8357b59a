"""The workflows for users, run by a real runner against a fake GitHub, and linted."""
