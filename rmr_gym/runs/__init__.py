"""What computes and remembers, knowing no world: stages, store, training loop, sweeps."""
