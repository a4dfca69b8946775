"""The transfer matrix: every donor's frozen P on every recipient (the paper's Figure 4)."""
