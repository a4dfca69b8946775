"""Policies that collect: the table of behaviour heads and the function that records them."""
