"""Frequent function words by language, for the rule and the score that ask for some: running text of the language has several.

English has the eight of Gopher (arXiv:2112.11446, A1.1). The others are articles, prepositions, conjunctions and pronouns that any
page of the language holds. A language without a list has its text not judged by such words.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from llm_training.cleaning.gopher import STOP_WORDS

_LISTS: Final = {
    "cs": "a v na je se že s z do o",
    "da": "og i at det er en til på som med",
    "de": "der die und in den von zu das mit ist",
    "es": "de la que el en y a los se del",
    "fi": "ja on ei että se oli hän mutta kun ovat",
    "fr": "de la le et les des en un une du",
    "hu": "a az és hogy nem is egy meg volt de",
    "id": "yang dan di dengan untuk dari ini pada itu tidak",
    "it": "di e il la che in per un del una",
    "nb": "og i det er til en på som med av",
    "nl": "de het een en van in is dat op te",
    "no": "og i det er til en på som med av",
    "pl": "i w na z się nie do że jest o",
    "pt": "de a o que e do da em um para",
    "ro": "de și în a la cu că pe o este",
    "ru": "и в не на что с по как это к",
    "sv": "och i att det som en på är av för",
    "tr": "ve bir bu da de için ile olarak daha çok",
    "uk": "і в не на що з до як та це",
}
LISTS: Final = {"en": STOP_WORDS, **{language: frozenset(words.split()) for language, words in _LISTS.items()}}


def stop_words_of(languages: Iterable[str]) -> frozenset[str]:
    """The words of all these languages; empty when one of them has no list, for then its texts have none to show."""
    chosen = [LISTS.get(language, frozenset[str]()) for language in languages]
    return frozenset().union(*chosen) if all(chosen) else frozenset()
