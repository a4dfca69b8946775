"""RIMs against an LSTM on sequences longer than in training: copying, digits, adding."""
