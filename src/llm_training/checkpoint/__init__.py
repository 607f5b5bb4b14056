"""Checkpoints: save without stalling, load only what verifies, keep what is worth keeping."""
