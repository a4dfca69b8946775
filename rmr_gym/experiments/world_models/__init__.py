"""World models compared on sequences of frames."""
