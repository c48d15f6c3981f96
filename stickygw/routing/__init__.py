"""Which slot does this connection go to, and why? Pure decisions: bytes and times come in as arguments. Floor 2."""
