"""The same as ``llm-train``, for those who start trainers by a script (torchrun scripts/train.py --config ...)."""

from llm_training.cli.train import main

if __name__ == "__main__":
    raise SystemExit(main())
