"""From raw interactions to a prepared dataset: cleaning, filtering, splits, windows, report."""
