"""What is done around every backend: it is found, its calls are retried, its answers are kept."""
