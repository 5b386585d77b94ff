"""What a new allocation or priority list would change."""
