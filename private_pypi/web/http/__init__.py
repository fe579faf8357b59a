"""HTTP for all of the server: credentials, answers, content, ranges, host names and routes."""
