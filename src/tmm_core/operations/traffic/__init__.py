"""Past or invented traffic through the engine, and what became of it."""
