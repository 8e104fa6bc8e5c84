"""Zoos as they are published: networks with a table of what is known of them, in a folder or an archive."""
