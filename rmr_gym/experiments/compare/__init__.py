"""The comparison of RMR with C-SWM and every control (the paper's Table 1)."""
