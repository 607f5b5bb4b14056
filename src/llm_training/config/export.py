"""The ``export`` section. It has no fields of its own yet: a checkpoint is a Hugging Face directory as it stands."""

from __future__ import annotations

from llm_training.config.section import Section


class ExportConfig(Section):
    """Fields come with the export formats."""
