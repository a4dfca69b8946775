"""Neural modules and losses: plain torch, no data and no environments."""
