"""Stages: functions that return an artifact, computed once and found again in the store."""
