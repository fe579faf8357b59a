"""Makes and changes sites; only commands use it, not the server."""
