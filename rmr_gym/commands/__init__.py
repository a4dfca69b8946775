"""The groups of subcommands, one module each; `rmr_gym.cli` joins them."""
