"""The packed cache: tokens on disk once, rows planned from them for any length, and the order in which a run sees them.

``store`` holds tokens by chunk and knows nothing of rows; ``view`` plans rows over a store; ``reader`` and ``windows``
turn rows into arrays; ``order`` says which row a sample is; ``loader`` fetches ahead. docs/cache-format.md is the format.
"""
