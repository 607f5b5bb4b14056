"""The ``serving`` section. It has no fields of its own yet."""

from __future__ import annotations

from llm_training.config.section import Section


class ServingConfig(Section):
    """Fields come with the server."""
