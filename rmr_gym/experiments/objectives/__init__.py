"""What each objective leaves in the encoder."""
