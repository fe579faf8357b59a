"""The sessions of people who signed in, and the protection of signing in."""
