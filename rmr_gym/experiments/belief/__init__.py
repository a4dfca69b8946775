"""Belief: RAM tracked from pixels and actions, with P or a control as the transition."""
