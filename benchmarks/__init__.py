"""Measurements, always as a ratio against a peer that does the same job in the same run."""
