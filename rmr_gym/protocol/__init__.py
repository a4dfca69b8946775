"""The stages (pretrain, natural, probe) and what runs them: configuration, store, sweep."""
