"""Run folders and what runs leave in them: predictions, cost, lineage."""
