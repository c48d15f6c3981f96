"""What a gateway can be told: settings, where they come from, and what is sound. Floor 0: the vocabulary."""
