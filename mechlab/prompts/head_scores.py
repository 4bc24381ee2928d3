"""Reader for published head scores: a JSON object from "layer-head" to the scores of all tests."""

import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mechlab.errors import PromptError
from mechlab.prompts.records import read_object

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["read_head_scores"]

_NAME = re.compile(r"(\d{1,4})-(\d{1,4})")


def read_head_scores(path: str | os.PathLike[str]) -> "xr.Dataset":
    """Read a head-score file of Wu et al. 2024 or Gema et al. 2024, `{"16-19": [1.0, 0.9, ...]}`.

    Such a list may mix several runs, as the published script appends to what is there.

    Args:
        path: the JSON file.

    Returns:
        Dataset of the axes layer, head: `retrieval_score`, the mean of the list (heads are ranked
        by it), and `tests`, its length. The grid reaches to the highest layer and head named; what
        is not named, or has an empty list, is NaN.

    Raises:
        PromptError: when the file cannot be read, or naming all entries that are no scores.
    """
    import xarray as xr

    found = read_object(Path(path))
    named = {name: _NAME.fullmatch(name) for name in found}
    wrong = [
        f"{name!r:.30}: {found[name]!r:.40}"
        for name, match in named.items()
        if match is None or not _are_scores(found[name])
    ]
    if wrong or not found:
        more = f" and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        raise PromptError(
            f"{path} holds {len(wrong)} entries of {len(found)} that are no head scores: "
            f"{'; '.join(wrong[:10])}{more}.\n"
            '  Expected {"layer-head": [scores], ...}, numbers counted from 0.\n'
            "  Check that it is the right file."
        )
    cells = {name: (int(match[1]), int(match[2])) for name, match in named.items() if match}
    shape = tuple(1 + max(cell[axis] for cell in cells.values()) for axis in (0, 1))
    mean, tests = np.full(shape, np.nan), np.zeros(shape, dtype=int)
    for name, cell in cells.items():
        scores = np.asarray(found[name], dtype=float)
        tests[cell] = len(scores)
        mean[cell] = scores.mean() if len(scores) else np.nan
    return xr.Dataset(
        {
            "retrieval_score": (("layer", "head"), mean, {"units": "share of needle tokens"}),
            "tests": (("layer", "head"), tests),
        },
        {"layer": np.arange(shape[0]), "head": np.arange(shape[1])},
    )


def _are_scores(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one)
        for one in value
    )
