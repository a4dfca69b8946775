"""World models that see crops, where they see less: fewer crops, fewer modules, more balls."""
