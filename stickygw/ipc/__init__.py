"""Messages and file descriptors between the processes. Floor 3."""
