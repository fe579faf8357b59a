"""Real clients against a real server; what they found is the table in `docs/compatibility.md`."""
