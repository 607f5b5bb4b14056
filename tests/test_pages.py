"""Pages to text where the parser is not asked."""

from __future__ import annotations

from llm_training.pages import extract_page, is_tangled, strip_tags


def test_stripping_keeps_what_is_read() -> None:
    page = (
        "<html><head><title>no</title><script>if (a < b) { '<p>no</p>' }</script><STYLE>p { no: 1 }</STYLE></head>\n<body>"
        "<!-- no <p>no</p> --><p class='a > b'>One   <b>bold</b>\nword &amp; more.</p><br/><div>Two<span>s</span></div>3 < 4</body>"
    )
    assert strip_tags(page) == "One bold\nword & more.\nTwos\n3 < 4"
    assert strip_tags(f"<p>&#{'9' * 5_000};</p>").startswith("&#999")
    assert strip_tags("<p>a</p><!-- never closed") == "a" and strip_tags('<p>a</p><a b="never closed') == "a"


def test_only_tangled_pages_are_stripped() -> None:
    rows = "<table>" + "<tr><td><p>cell<li>item<br><img src=x>" * 5_000 + "</table>"
    styled = "<p><b><i><font size=2>word</font></i></b></p>" * 5_000
    assert not is_tangled(rows + styled + "<div>" * 200 + "</div>" * 200)
    assert is_tangled("<div>" * 300) and is_tangled("<font>" * 40)
    page = "<html><body>" + "<div>" * 300 + "<p>The text of it.</p>" + "</div>" * 300
    assert extract_page(page) == "The text of it."
