"""Generation: tokens from a model, one prompt or a batch, streamed or at once. ``sampling`` draws, ``generate`` runs."""
