"""Servers as supervised processes: built from a launcher, known to be ready, watched, stopped."""
