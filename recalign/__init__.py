"""recalign: align language-model recommenders to list-level metrics."""

__version__ = "0.1.0"
