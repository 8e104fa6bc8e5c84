"""Training: one loop for everything that learns here."""
