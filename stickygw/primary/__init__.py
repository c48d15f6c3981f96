"""The primary process: accepts, looks, hands over, supervises. Floor 5."""
