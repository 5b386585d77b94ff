"""The event log from inside: schema, files and rows; who writes it, and what is read out of it."""
