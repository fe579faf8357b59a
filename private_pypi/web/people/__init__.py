"""What people see in a browser: sign in, sessions and pages; nothing that tools are answered."""
