"""Rollouts: durable plans that bring a candidate from its replay to all readers, and take it back on a fault."""
