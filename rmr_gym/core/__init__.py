"""What every part of the suite may import."""
