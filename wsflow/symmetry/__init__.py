"""Symmetries of weights: actions that keep the function, canonical forms, and matchings to a reference."""
