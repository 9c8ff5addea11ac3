"""Built-in metrics, which are rewards too: one file each, on the public api only."""
