"""Games played by planning in P, from pixels, beside controls in its place."""
