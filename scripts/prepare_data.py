"""The same as ``llm-prepare-data``."""

from llm_training.cli.prepare_data import main

if __name__ == "__main__":
    raise SystemExit(main())
