"""Plugin kinds: finding, checking and scaffolding plugins."""
