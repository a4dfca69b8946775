"""World models of crops that see less."""
