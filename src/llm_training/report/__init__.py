"""Statistics in bounded memory, charts as SVG, and self-contained HTML pages made of them."""
