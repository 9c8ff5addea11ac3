"""Rationales as data: which candidates teachers are asked about, what comes back, the file that people edit."""
