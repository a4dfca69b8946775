"""What ties a world to its models."""
