"""The addresses for tools: the simple API, uploads, JSON, feeds, metrics and health."""
