"""World models of frames: R-NEM, RIMs, S2RM, what they are compared with, a P inside them."""
