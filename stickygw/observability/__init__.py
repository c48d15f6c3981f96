"""Counts and logs. Floor 1."""
