"""``connector:MODULE:CLASS[?NAME=VALUE&...]``: documents from a class of the user's own.

MODULE is a dotted name or the path of a ``.py`` file. Naming it imports and runs that code, with all rights of the user: name
only what you trust. The class is opened anew in each worker process, so documents have to come in the same order each time.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import orjson

from llm_training.corpus.document import CorpusSettings
from llm_training.corpus.sources.kinds import CONNECTOR_KIND, SourceFile
from llm_training.corpus.sources.rows import Row
from llm_training.errors import ConfigError, DataError, LlmTrainingError, StorageError
from llm_training.storage.home import expanded

SCHEME = "connector:"
T = TypeVar("T")
_FORM = "connector:package.module:ClassName"


@dataclass(frozen=True)
class DataSourceConnectorOutput:
    """What a connection tells.

    Attributes:
        connection_id: any name for it.
        status: ``connected`` when it is.
        metadata: facts about the source, for example ``{"records": n}``. While they are equal, the source counts as unchanged.
    """

    connection_id: str
    status: str = "connected"
    metadata: Mapping[str, Any] = field(default_factory=dict)


class DataSourceConnector(ABC):
    """Base of a user's own source of documents.

    ``connect`` is enough to ask a source what it holds; to train on it, ``documents`` is needed too.

    Attributes:
        input_class: what ``connect`` takes when the source is named by a URI: called with the words after ``?``. Without it
            ``connect`` gets them as a dictionary.
    """

    input_class: type | None = None

    def __init__(self, event_bus: object = None) -> None:
        self.event_bus = event_bus

    @abstractmethod
    def connect(self, input_data: Any) -> DataSourceConnectorOutput:
        """Reach the source. Raise ConnectionError when it refuses."""

    def documents(self, connection: DataSourceConnectorOutput, start: int = 0) -> Iterator[str | Mapping[str, Any]]:
        """Documents in a stable order from number ``start`` on: texts, or mappings with the text under ``data.text_field``.

        New documents come after the old ones; then a resumed run takes them in.
        """
        raise ConfigError(f"{type(self).__name__} has no method documents", remedy="add it: it yields the texts in a stable order")


def find_connector(rest: str, _settings: CorpusSettings) -> list[SourceFile]:
    """The one entry of a connector. Raises ConfigError when the class cannot be found."""
    name, _words = _divided(rest)
    connector = load_class(rest)
    return [SourceFile(connector.__name__, Path(SCHEME + name), CONNECTOR_KIND, uri=SCHEME + rest)]


def _divided(rest: str) -> tuple[str, dict[str, str]]:
    name, _, query = rest.partition("?")
    return name, dict(parse_qsl(query, keep_blank_values=True))


def load_class(rest: str) -> type[DataSourceConnector]:
    """Import the class that ``MODULE:CLASS`` names. Raises ConfigError."""
    name, _words = _divided(rest)
    module_name, _, class_name = name.rpartition(":")
    if not module_name or not class_name:
        raise ConfigError("the source names no class", where=SCHEME + name, remedy=f"write {_FORM} or connector:file.py:ClassName")
    try:
        found = getattr(_module(module_name), class_name, None)
    except LlmTrainingError:
        raise
    except Exception as error:  # whatever the user's module does when it is imported
        what = f"cannot import {module_name} ({type(error).__name__}: {_first_line(error)})"
        raise ConfigError(what, where=SCHEME + name, remedy="check the name and PYTHONPATH, or give the path of the .py file") from None
    if not (isinstance(found, type) and issubclass(found, DataSourceConnector)):
        what = f"{class_name} is not a class derived from DataSourceConnector"
        raise ConfigError(what, where=SCHEME + name, remedy="from llm_training import DataSourceConnector")
    return found


def _module(name: str) -> Any:
    if not name.endswith(".py"):
        return importlib.import_module(name)
    path = expanded(name).resolve()
    key = f"llm_training_connector_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if key in sys.modules:
        return sys.modules[key]
    spec = importlib.util.spec_from_file_location(key, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigError("no such file", where=str(path), remedy=f"write {_FORM} or connector:file.py:ClassName")
    module = importlib.util.module_from_spec(spec)
    sys.modules[key] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[key]
        raise
    return module


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "")[:160]


class ConnectorRows:
    """The documents of a connector as rows; see :class:`llm_training.corpus.sources.rows.RowSource`."""

    def __init__(self, file: SourceFile, settings: CorpusSettings) -> None:
        self.shown = str(file.path)
        self._rest = file.uri.removeprefix(SCHEME)
        self._text_field = settings.text_field
        self._opened: tuple[DataSourceConnector, DataSourceConnectorOutput] | None = None

    def stamp(self) -> str:
        """The metadata of the connection; without any, a mark never seen before, so that the content is compared."""
        metadata = dict(self._open()[1].metadata)
        if not metadata:
            return f"unknown-{time.time_ns()}"
        return hashlib.sha256(orjson.dumps(metadata, option=orjson.OPT_SORT_KEYS, default=str)).hexdigest()[:16]

    def rows_from(self, start: int) -> Iterator[Row]:
        """Rows from ``start`` on. Raises StorageError when the source refuses, DataError for a failure in the user's code."""
        connector, connection = self._open()
        documents = self._guarded(lambda: iter(connector.documents(connection, start)))
        while (document := self._guarded(lambda: next(documents, None))) is not None:
            yield {self._text_field: document} if isinstance(document, str) else document

    def _open(self) -> tuple[DataSourceConnector, DataSourceConnectorOutput]:
        if self._opened is None:
            self._opened = self._guarded(self._connect)
        return self._opened

    def _connect(self) -> tuple[DataSourceConnector, DataSourceConnectorOutput]:
        _name, words = _divided(self._rest)
        cls = load_class(self._rest)
        connector = cls()
        connection = connector.connect(cls.input_class(**words) if cls.input_class else words)
        if connection.status != "connected":
            raise StorageError(f"the source answers {connection.status!r}", where=self.shown, remedy="see the class's own messages")
        return connector, connection

    def _guarded(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except LlmTrainingError:
            raise
        except ConnectionError as error:
            what = f"the source refuses ({_first_line(error) or type(error).__name__})"
            raise StorageError(what, where=self.shown, remedy="check the source, then run again") from None
        except Exception as error:  # whatever the user's code raises
            what = f"the connector failed ({type(error).__name__}: {_first_line(error)})"
            raise DataError(what, where=self.shown, remedy="mend the class") from None

    def close(self) -> None:
        """Forget the connection; closes it where the class has a method ``close``."""
        opened, self._opened = self._opened, None
        close = getattr(opened[0], "close", None) if opened else None
        if callable(close):
            self._guarded(close)
