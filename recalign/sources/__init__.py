"""Built-in sources: one file each, on the public api only."""
