"""Pictures of runs: the loss curve that ends a run, and the page of all training figures of one run or of several.

Drawn with matplotlib (extra ``plots``), imported only when something is drawn, through its object interface: no global
state, no display.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from llm_training.errors import ConfigError, DataError
from llm_training.monitoring.curves import differ_in_tokenizer
from llm_training.monitoring.panels import STYLE, draw_loss_curve, draw_training
from llm_training.monitoring.series import RunSeries, read_run
from llm_training.storage.durable import make_directory, write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")
_DOTS_PER_INCH = 160


def plot_training_progress(path: str | Path | Sequence[str | Path], output: str | Path | None = None) -> Path:
    """Draw loss, learning rate, throughput, memory and progress of one run or of several in one figure.

    Args:
        path: run directory, ``metrics.jsonl`` or JSON run log; or several of them.
        output: picture to write (.png, .svg, .pdf); by default ``plots/training.png`` in the run, beside a log file, or
            ``comparison.png`` here for several.

    Returns the picture's path. Raises ConfigError (matplotlib missing, unknown format), DataError, IntegrityError, StorageError.
    """
    paths = [Path(path)] if isinstance(path, str | Path) else [Path(each) for each in path]
    if not paths:
        raise ConfigError("no run to plot", remedy="name at least one run directory")
    target = Path(output) if output is not None else _default_output(paths)
    return _drawn(target, (11.0, 9.2), lambda figure: draw_training(figure, _comparable([read_run(each) for each in paths])))


def plot_loss_curve(run: str | Path, output: str | Path | None = None) -> Path:
    """Draw the loss curve of one run with its final figures, by default to ``plots/loss.png`` in the run.

    Returns and raises as `plot_training_progress`.
    """
    source = Path(run)
    target = Path(output) if output is not None else _picture_folder(source) / "loss.png"
    return _drawn(target, (9.6, 6.2), lambda figure: draw_loss_curve(figure, read_run(source)))


def _comparable(runs: list[RunSeries]) -> list[RunSeries]:
    """The runs, once it is sure that something compares them. Raises DataError."""
    if differ_in_tokenizer(runs):
        bare = next((run.name for run in runs if not any(each.bits_per_byte is not None for each in run.evaluations)), None)
        if bare is not None:
            raise DataError(
                "runs with different tokenizers compare in bits per byte only, and this one has none recorded",
                where=bare,
                remedy="compare runs of one tokenizer, or score both on one text with llm-evaluate",
            )
    return runs


def _picture_folder(path: Path) -> Path:
    return path / "plots" if path.is_dir() else path.parent


def _default_output(paths: Sequence[Path]) -> Path:
    if len(paths) > 1:
        return Path("comparison.png")
    return _picture_folder(paths[0]) / ("training.png" if paths[0].is_dir() else f"{paths[0].stem}.png")


def _drawn(target: Path, inches: tuple[float, float], draw: Callable[[Figure], None]) -> Path:
    """Check what can be checked before any work, draw, and write the picture as a whole."""
    kind = target.suffix.lstrip(".").lower()
    if kind not in FORMATS:
        known = ", ".join(f".{each}" for each in FORMATS)
        raise ConfigError(f"a picture cannot be of type {target.suffix!r}", where=str(target), remedy=f"end its name in one of {known}")
    try:
        matplotlib, figures = import_module("matplotlib"), import_module("matplotlib.figure")
    except ImportError:
        raise ConfigError("plots need matplotlib, which is not installed", remedy='run: pip install "llm-training[plots]"') from None
    picture = io.BytesIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a glyph that the font lacks becomes a box, which is right here
        figure = figures.Figure(figsize=inches, layout="constrained", facecolor="white")
        draw(figure)
        figure.savefig(picture, format=kind, dpi=_DOTS_PER_INCH, metadata={"Date": None} if kind == "svg" else None)
    make_directory(target.absolute().parent)
    write_bytes(target, picture.getvalue(), mode=0o644)
    return target
