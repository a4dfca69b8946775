"""Abstract models of every game (the paper's Table 2)."""
