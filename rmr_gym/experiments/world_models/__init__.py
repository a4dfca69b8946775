"""World models: R-NEM, RIMs, S2RM, what they are compared with, a P inside them."""

EXPERIMENTS = {
    "world_models": "World models of frames: R-NEM, RIMs, S2RM, with a P inside them or without.",
    "views": "World models of crops where they see less: fewer crops, fewer modules, more balls.",
}
