"""Which workers there are to be, and what is done about those there are. Pure decisions. Floor 2."""
