"""The transformer and everything that follows from its shape: weights in and out, init, loss, sizes, key/value cache.

Import from the file that owns the name (``model.spec``, ``model.transformer``, ``model.loss``, ...); this file re-exports nothing,
so that reading a ``ModelSpec`` costs no torch import.
"""
