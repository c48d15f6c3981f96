"""The worker process: holds the connections of one slot and runs the application for them."""
