"""What operators get to know: the log, the audit file, and counts of requests and changes."""
