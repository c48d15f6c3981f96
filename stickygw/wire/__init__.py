"""What bytes look like on links, bridges and WebSockets, and in HTTP answers. Pure. Floor 2."""
