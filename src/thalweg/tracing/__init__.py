"""One reader of a network's structure: what is applied to what."""
