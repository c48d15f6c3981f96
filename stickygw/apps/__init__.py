"""What user code sees. Floor 4."""
