"""RIMs against an LSTM on sequences longer than in training, and in imitation."""
