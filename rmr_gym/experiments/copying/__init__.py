"""RIMs against an LSTM on the copying task."""
