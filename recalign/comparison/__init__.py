"""Evaluations side by side: aggregation, paired tests, report."""
