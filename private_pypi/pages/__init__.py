"""Makes the texts that an index serves: JSON, HTML and feeds. Independent of the web server."""
