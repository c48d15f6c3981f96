"""Applications of event handlers: `App` and `Connection`."""
