"""Venue adapters, one file per venue family."""
