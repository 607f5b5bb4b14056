"""Kinds of sources: one file for each way in which text is stored."""
