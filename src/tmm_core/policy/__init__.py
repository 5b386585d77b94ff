"""What the SEC says: service requests, priority list, allocations, configuration."""
