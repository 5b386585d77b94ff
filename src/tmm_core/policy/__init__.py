"""What the SEC says: Service Requests, priority list, allocations, configuration."""
