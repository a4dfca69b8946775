"""World models: R-NEM, RIMs, S2RM and what they are compared with."""
