"""Distribution files: their names, archives, core metadata and records, and the upload form."""
