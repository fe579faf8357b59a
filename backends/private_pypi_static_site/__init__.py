"""The `static_site` backend: an index that is only files, such as on GitHub Pages."""
