"""Held-out figures: loss, perplexity, bits per byte, accuracy."""
