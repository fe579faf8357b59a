"""Real servers in trouble: killed, starved, lied to, and kept waiting."""
