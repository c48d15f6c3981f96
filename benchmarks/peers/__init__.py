"""What people write by hand today, as short as it can be: what ours is compared with."""
