"""Sessions and where they are stored: in memory, in Redis or Valkey. Floor 3."""
