"""Every rule: its bound from both sides, and datatrove's verdicts on real text."""

from __future__ import annotations

import itertools
import random
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from llm_training.cleaning import (
    STEPS,
    C4Quality,
    Cleaner,
    CleaningSettings,
    FineWebQuality,
    GopherQuality,
    GopherRepetition,
    TextView,
    identify,
    mask,
    normalise,
    pii,
    quality_score,
)
from llm_training.cleaning.gopher import duplicate_ngram_characters, top_ngram_characters
from llm_training.cleaning.html import is_html
from llm_training.cleaning.stop_words import LISTS
from llm_training.cleaning.words import WordTable
from llm_training.errors import ConfigError
from llm_training.pages import extract_page
from tests.cleaning.reference import differences, texts_of

PROSE = (
    "The harbour lay still that morning, and the boats that had been out all night came back with their lamps burning low. "
    "Nobody spoke of the storm. An old man with a grey coat stood at the end of the pier and counted them as they passed, one by one, "
    "until he was certain that none was missing. Then he put away his pipe and walked home to have his breakfast with the others. "
    "It would be a warm day, he said, and the nets could be dried on the wall behind the church before the evening."
)


def reason_of(rule: object, text: str) -> str | None:
    verdict = rule.judge(TextView(text))  # type: ignore[attr-defined]
    return verdict and verdict.reason


def test_prose_passes_every_rule() -> None:
    for rule in (GopherQuality(), GopherRepetition(), C4Quality(min_sentences=4), FineWebQuality()):
        assert reason_of(rule, PROSE) is None
    assert quality_score(TextView(PROSE)) == 1.0


@pytest.mark.parametrize(
    ("rule", "text", "reason"),
    [
        (GopherQuality(), "the cat and the dog. " * 3, "gopher_short_doc"),
        (GopherQuality(max_words=60), PROSE, "gopher_long_doc"),
        (GopherQuality(), "a b c the of I " * 20, "gopher_below_avg_threshold"),
        (GopherQuality(), "0123456789abcdef0 " * 60, "gopher_above_avg_threshold"),
        (GopherQuality(), PROSE + " #" * 20, "gopher_too_many_hashes"),
        (GopherQuality(), PROSE + " word…" * 20, "gopher_too_many_ellipsis"),
        (GopherQuality(), "\n".join(f"- the line {n} and that of the list" for n in "abcdefghij"), "gopher_too_many_bullets"),
        (GopherQuality(), "\n".join([PROSE, "more...", "more…"]), "gopher_too_many_end_ellipsis"),
        (GopherQuality(), PROSE + " 1234" * 60, "gopher_below_alpha_threshold"),
        (GopherQuality(), "lorem ipsum dolor sit amet " * 20, "gopher_enough_stop_words"),
        (GopherRepetition(), "", "empty"),
        (GopherRepetition(), "one\n\none\n\none\n\n" + PROSE, "dup_para_frac"),
        (GopherRepetition(), f"{PROSE}\n\n{PROSE}\n\nother\n\nanother", "dup_para_char_frac"),
        (GopherRepetition(), "one\none\none\n" + PROSE, "dup_line_frac"),
        (GopherRepetition(), f"{PROSE}\n{PROSE}\nother\nanother", "dup_line_char_frac"),
        (GopherRepetition(), "the same " * 30 + PROSE, "top_2_gram"),
        (C4Quality(), PROSE.replace(".", ";"), "too_few_sentences"),
        (C4Quality(), PROSE + "\nLorem ipsum dolor sit amet.", "lorem_ipsum"),
        (C4Quality(), PROSE + "\nif (a) { return one more time.", "curly_bracket"),
        (FineWebQuality(), " \n \n", "empty"),
        (FineWebQuality(), "\n".join(["a line of some length without a mark at its end"] * 9 + [PROSE]), "line_punct_ratio"),
        (FineWebQuality(), "Home.\nAbout.\nContact.\n" + PROSE, "short_line_ratio"),
        (FineWebQuality(), "\n".join(["A sentence that stands here more than once."] * 2 + [PROSE]), "char_dup_ratio"),
        (FineWebQuality(short_line_characters=0), "One two.\nThree four.\nFive six.\nSeven eight.", "list_ratio"),
    ],
)
def test_reason_of_each_rule(rule: object, text: str, reason: str) -> None:
    assert reason_of(rule, text) == reason


def test_c4_leaves_lines_of_prose() -> None:
    text = f"Menu\n{PROSE}\nPlease enable JavaScript to go on.\nWe use cookies on this site.\nIt ended there [12] at last.\nno mark here"
    assert C4Quality(min_sentences=3).filter(text) == (f"{PROSE}\nIt ended there  at last.", None)


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_ngram_counts_are_those_of_plain_counting(n: int) -> None:
    """Against the definition, on short texts of few words, where everything repeats; digits make joined n-grams ambiguous."""
    rng = random.Random(n)
    for _ in range(150):
        words = rng.choices(["a", "b", "ab", "1", "11", "x"], k=rng.randrange(1, 60))
        table = WordTable(" ".join(words))
        grams = [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]
        seen, index, expected = set(), 0, 0
        while index < len(grams):
            joined = "".join(grams[index])
            expected += len(joined) if joined in seen else 0
            index += n if joined in seen else 1
            seen.add(joined)
        assert duplicate_ngram_characters(table, n) == expected
        counts = {gram: grams.count(gram) for gram in dict.fromkeys(grams)}
        top = max(counts.items(), key=lambda item: item[1], default=((), 0))
        assert top_ngram_characters(table, n) == len(" ".join(top[0])) * top[1]


@pytest.mark.data
def test_verdicts_are_those_of_datatrove_on_the_messy_set(test_data: Path) -> None:
    compared, found = differences(texts_of(test_data / "messy" / "messy.jsonl.gz", every=2, longest=100_000))
    assert compared > 3_000 and found == []


@pytest.mark.data
@pytest.mark.slow
def test_verdicts_are_those_of_datatrove_on_books_and_web_pages(test_data: Path) -> None:
    samples = [texts_of(path, every=19, longest=300_000) for path in sorted(test_data.glob("*/train-*.jsonl.gz"))]
    samples += [texts_of(path) for path in sorted(test_data.glob("web/*.json*.gz"))]
    compared, found = differences(itertools.chain(*samples))
    assert compared > 500 and found == []


@pytest.mark.data
@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_verdicts_are_those_of_datatrove_on_all_80_mb(test_data: Path) -> None:
    paths = [test_data / "messy" / "messy.jsonl.gz", *sorted(test_data.glob("*/train-*.jsonl.gz"))]
    compared, found = differences(itertools.chain(*map(texts_of, paths)))
    assert compared > 15_000 and found == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("â€œHe saidâ€\x9d it was a cafÃ©, didnâ€™t he?", "“He said” it was a café, didn’t he?"),
        ("CAFÉ» et naïve, Ålesund, señor", "CAFÉ» et naïve, Ålesund, señor"),
        ("Ð¿Ñ€Ð¸Ð²ÐµÑ‚", "привет"),
        ("Ã¢â‚¬â„¢tis", "’tis"),
        ("line\r\nline\rline", "line\nline\nline"),
        ("\ufeffA\x00word\x07 \x1b[31mred\x1b[0m", "A word  red"),
        ("e\u0301tude", "étude"),
        ("plain ascii", "plain ascii"),
    ],
)
def test_normalising(text: str, expected: str) -> None:
    assert normalise(text)[0] == expected
    assert normalise(expected) == (expected, {})


def test_html_is_reduced_to_its_content() -> None:
    page = (
        "<html><head><title>x</title><script>var a = 1;</script></head><body><ul class='nav'><li><a href='/'>Home</a></li>"
        f"<li><a href='/about'>About us</a></li></ul><p>{PROSE}</p><p>The end &amp; more.</p></body></html>"
    )
    assert is_html(page) and extract_page(page).split() == f"{PROSE} The end & more.".split()
    assert not is_html(f"{PROSE} In HTML a paragraph is written <p>so</p>, and bold text <b>so</b>.")
    assert not is_html("if a < b and c > d: </nothing")


@pytest.mark.parametrize(
    ("text", "masked", "kinds"),
    [
        ("write to jo.hn+x@mail.example.org, or", "write to [EMAIL], or", {"email masked": 1}),
        ("call (202) 555-0123 or +1 202 555 0124 or 202-555-0125.", "call [PHONE] or [PHONE] or [PHONE].", {"phone masked": 3}),
        ("from 192.0.2.44 and 2001:db8::8:800:200c:417a", "from [IP] and [IP]", {"ip masked": 2}),
        ("+44 20 7946 0018 is in London", "[PHONE] is in London", {"phone masked": 1}),
        ("in 1914-1918, 3.14.159, 999.1.2.3, 10:30:15, a::b, user@home", None, {}),
        ("ISBN 978-0-306-40615-7 and 1,000,000 of 2010-2011", None, {}),
    ],
)
def test_masking(text: str, masked: str | None, kinds: dict[str, int]) -> None:
    assert mask(text) == (masked or text, kinds)


def test_looking_for_digits_first_hides_no_number() -> None:
    """What is cheap to look for is a part of everything that is masked."""
    rng = random.Random(3)
    found: Counter[str] = Counter()
    for _ in range(40_000):
        text = "".join(rng.choices(rng.choice(("0123456789555 .-()+x", "0123456789....v ")), k=rng.randrange(8, 40)))
        masked, number = pii._PHONE.subn(pii.MASKS["phone"], text)
        masked, addresses = pii._mask_addresses(masked, pii._IP4)
        assert mask(text)[0] == masked, text
        found.update(phone=number, ip=addresses)
    assert min(found.values()) > 20, found


@pytest.mark.data
def test_languages_of_the_declaration_of_human_rights(test_data: Path) -> None:
    import zipfile

    taken_for_english: list[str] = []
    with zipfile.ZipFile(test_data / "udhr" / "udhr2.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".txt")]
        for name in names:
            text = archive.read(name).decode()
            middle = len(text) // 2
            language, probability = identify(text[middle : middle + 800])
            if language == "en" and probability >= CleaningSettings().min_language_probability:
                taken_for_english.append(name.rpartition("/")[2])
    assert len(names) > 380 and set(taken_for_english) == {"eng.txt", "sco.txt"}  # Scots


def test_steps_can_be_left_out_and_are_checked() -> None:
    noisy = "é".encode().decode("latin-1") + " 0123456789abcdef" * 60
    assert Cleaner(CleaningSettings(steps=())).clean(noisy).text == noisy
    assert Cleaner(CleaningSettings(steps=())).clean("").reason == "too_short"
    assert Cleaner(CleaningSettings(steps=("gopher",))).clean(noisy).reason == "gopher_above_avg_threshold"
    assert Cleaner(CleaningSettings(steps=("language",), languages=("de",))).clean(PROSE).reason == "other_language"
    assert Cleaner(CleaningSettings()).clean("import os\nprint(os)\n" * 9, is_prose=False).verdict is None
    assert Cleaner(CleaningSettings(min_length=900)).clean(PROSE).reason == "too_short"
    assert Cleaner(CleaningSettings(steps=(), min_quality=0.5)).clean(noisy).reason == "low_quality"
    with pytest.raises(ConfigError, match="no cleaning step wash; known: normalise"):
        Cleaner(CleaningSettings(steps=("wash",)))
    with pytest.raises(ConfigError, match="language xx is not known"):
        Cleaner(CleaningSettings(languages=("xx",)))
    assert Cleaner(CleaningSettings()).settings.steps == STEPS


def test_scores_are_in_order() -> None:
    menu = "Home\nAbout\nContact\nHome\nLogin\nHelp"
    scores = [quality_score(TextView(text)) for text in ("", "#### 12 ----", menu, "a list: " + ", ".join("abcdefgh"), PROSE)]
    assert scores[0] == 0 and scores[-1] == 1 and all(0 <= score < 0.5 for score in scores[:-1])


@pytest.mark.parametrize("language", ["de", "fr", "es", "ru", "sw"])
def test_text_of_another_language_is_kept_where_it_is_wanted(language: str, test_data: Path) -> None:
    """The declaration of human rights; Swahili has no list of stop words and is not judged by them."""
    names = {"de": "deu", "fr": "fra", "es": "spa", "ru": "rus", "sw": "swh"}
    with zipfile.ZipFile(test_data / "udhr" / "udhr2.zip") as texts:
        text = texts.read(next(name for name in texts.namelist() if name.endswith(f"/{names[language]}.txt"))).decode()
    rules = ("language", "gopher")
    assert Cleaner(CleaningSettings(steps=rules, languages=(language,))).clean(text).verdict is None
    assert Cleaner(CleaningSettings(steps=rules, languages=("en", language))).clean(text).verdict is None
    refused = Cleaner(CleaningSettings(steps=rules)).clean(text).verdict
    assert refused is not None and refused.step == "language"


def test_shuffled_letters_are_no_text_in_any_language_with_stop_words() -> None:
    noise = " ".join("".join(random.Random(number).sample("abcdefghijklm", 6)) for number in range(200))
    for language, words in LISTS.items():
        verdict = Cleaner(CleaningSettings(steps=("gopher",), languages=(language,))).clean(noise).verdict
        assert len(words) >= 8 and verdict is not None and verdict.reason == "gopher_enough_stop_words"
