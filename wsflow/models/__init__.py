"""Models: torch-level objects that need no scikit-learn."""
