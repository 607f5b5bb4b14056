"""The ``monitoring`` section: what is shown and recorded."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llm_training.config.section import Section

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


class MonitoringConfig(Section):
    """Sinks of the event stream. metrics.jsonl and the JSON run log are always written."""

    console: Annotated[
        Literal["auto", "rich", "plain", "off"], Field(description="auto: a live line in a terminal, plain lines elsewhere")
    ] = "auto"
    plots: Annotated[bool, Field(description="draw the loss curve as PNG when the run ends")] = True
    log_level: Annotated[LogLevel, Field(description="least level of messages on stderr")] = "INFO"
