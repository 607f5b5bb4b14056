"""Every code that the detector knows has a name."""

from __future__ import annotations

import pytest

from llm_training.cleaning.language import known_languages
from llm_training.report.languages import NAMES, is_language, language_name


def test_every_code_of_the_detector_has_a_name() -> None:
    pytest.importorskip("py3langid")
    assert sorted(code for code in known_languages() if language_name(code) == code) == []


def test_names_are_different_and_marks_are_no_languages() -> None:
    assert len(set(NAMES.values())) == len(NAMES) and language_name("xx") == "xx"
    assert is_language("an") and not is_language("uncertain") and not is_language("zxx")
