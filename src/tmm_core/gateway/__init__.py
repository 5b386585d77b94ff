"""Where Service Requests come in."""
