"""Thalweg: an intent solver daemon."""
