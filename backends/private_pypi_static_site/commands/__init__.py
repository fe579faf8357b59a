"""The commands `static_site.…`."""
