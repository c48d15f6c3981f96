"""When is a worker started again? Pure decisions. Floor 2."""
