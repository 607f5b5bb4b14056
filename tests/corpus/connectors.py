"""Connectors that the tests name by URI: a class over a web service as the guide shows it, and ones that misbehave."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from llm_training import DataSourceConnector, DataSourceConnectorOutput


@dataclass
class ServiceInput:
    """What the service wants to know."""

    api_endpoint: str
    api_key: str = ""
    category: str = ""


class ServiceSource(DataSourceConnector):
    """A service that answers with a list of texts."""

    input_class = ServiceInput

    def connect(self, input_data: ServiceInput) -> DataSourceConnectorOutput:
        request = urllib.request.Request(
            f"{input_data.api_endpoint}?{urllib.parse.urlencode({'category': input_data.category})}",
            headers={"Authorization": f"Bearer {input_data.api_key}"},
        )
        try:
            with urllib.request.urlopen(request) as answer:
                self._texts = json.load(answer)
        except urllib.error.HTTPError as error:
            status = error.code
            error.close()
            raise ConnectionError(f"API returned {status}") from None
        return DataSourceConnectorOutput(connection_id=str(uuid.uuid4()), status="connected", metadata={"records": len(self._texts)})

    def documents(self, connection: DataSourceConnectorOutput, start: int = 0) -> Iterator[str]:
        yield from self._texts[start:]


class Records(DataSourceConnector):
    """Mappings, some of them bad, and no facts about the source."""

    count = 20

    def connect(self, input_data: dict[str, str]) -> DataSourceConnectorOutput:
        return DataSourceConnectorOutput("one", metadata={})

    def documents(self, connection: DataSourceConnectorOutput, start: int = 0) -> Iterator[dict[str, object]]:
        for number in range(start, self.count):
            yield {"text": f"record {number} " + "w " * number, "id": f"r{number}", "n": number} if number != 7 else {"n": number}


class Refusing(Records):
    def connect(self, input_data: dict[str, str]) -> DataSourceConnectorOutput:
        return DataSourceConnectorOutput("one", status="asleep")


class Broken(Records):
    def documents(self, connection: DataSourceConnectorOutput, start: int = 0) -> Iterator[dict[str, object]]:
        yield {"text": "one"}
        raise KeyError("oops")


class Silent(DataSourceConnector):
    def connect(self, input_data: dict[str, str]) -> DataSourceConnectorOutput:
        return DataSourceConnectorOutput("one", metadata={"records": 3})


NOT_A_CLASS = 3


class Halves(DataSourceConnector):
    """Records with halves of surrogate pairs."""

    def connect(self, input_data: dict[str, str]) -> DataSourceConnectorOutput:
        return DataSourceConnectorOutput("halves", metadata={})

    def documents(self, connection: DataSourceConnectorOutput, start: int = 0) -> Iterator[dict[str, object]]:
        words = {"text": "some words"}
        yield from [words, words | {"id": "\ud800"}, words | {"title": "\udfff"}, words | {"\ud800": 1}, {"text": "x\ud800"}, words][start:]
