"""Per-user metrics, baselines, significance, cost, reports."""
