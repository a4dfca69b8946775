"""The graded players that record data sets."""
