"""Criteria of units that structure block alone takes: they need more than moments of what its matrices read."""
