import io
from collections.abc import Callable

import numpy as np
import xarray as xr
from rich.console import Console

from mechlab.plots import grid_view, grid_views, to_terminal


def printed(views: object, *, width: int = 80, color: bool = False, **options: int) -> str:
    system = "truecolor" if color else None
    console = Console(
        file=io.StringIO(), width=width, color_system=system, force_terminal=color  # type: ignore[arg-type]
    )  # fmt: skip
    console.print(to_terminal(views, **options))  # type: ignore[arg-type]
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_every_token_and_layer_is_there_with_its_number(trace: xr.Dataset) -> None:
    trace["indirect_effect"][0, 1, 2, 4] = 0.42
    lines = printed(grid_view(trace, site="mlp_out")).splitlines()
    tower = next(line for line in lines if "4·␣Tower" in line)
    assert tower.split()[1:][2] == "42"
    assert next(line for line in lines if line.strip().startswith("layer")).split() == [
        "layer",
        "0",
        "1",
        "2",
        "3",
    ]


def test_a_cell_not_computed_is_a_dot_and_zero_is_a_number(trace: xr.Dataset) -> None:
    trace["indirect_effect"][0, 1, :, 0] = np.nan
    trace["indirect_effect"][0, 1, :, 1] = 0.0
    text = printed(grid_view(trace, site="mlp_out"))
    assert next(line for line in text.splitlines() if "0·<s>" in line).split()[1:] == ["·"] * 4
    assert next(line for line in text.splitlines() if "1·The" in line).split()[1:] == ["0"] * 4
    assert "“·” not computed" in text


def test_tokens_that_look_like_markup_are_printed_as_they_are(
    trace_of: Callable[..., xr.Dataset],
) -> None:
    text = printed(grid_view(trace_of([["[red]", "[/]", "\x1b[2J"]]), site="mlp_out"))
    assert "0·[red]" in text
    assert "1·[/]" in text
    assert "\x1b" not in text


def test_small_effects_keep_the_terminals_own_background(trace: xr.Dataset) -> None:
    trace["indirect_effect"][0, 1] = 0.001
    trace["indirect_effect"][0, 1, 0, 0] = 0.5
    text = printed(grid_view(trace, site="mlp_out"), color=True)
    assert text.count("48;2;") == 1  # one coloured background: the strong cell


def test_a_deep_model_fits_the_width(trace_of: Callable[..., xr.Dataset]) -> None:
    view = grid_view(trace_of(layers=48), site="mlp_out")
    for width in (40, 80, 200, 240):
        lines = printed(view, width=width).splitlines()
        assert max(map(len, lines)) <= width
    assert "one layer in" in printed(view, width=40)
    assert "one layer in" not in printed(view, width=80)


def test_a_long_prompt_shows_its_strongest_tokens_and_counts_the_rest(
    trace_of: Callable[..., xr.Dataset],
) -> None:
    data = trace_of([[f" t{i}" for i in range(200)]])
    data["indirect_effect"][:] = 0.001
    data["indirect_effect"][..., 77] = 0.6
    text = printed(grid_view(data, site="mlp_out"), most_rows=3)
    assert "77·␣t77" in text
    assert "199·␣t199" in text
    assert "all within ±0.001" in text
    hidden = sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("⋮"))
    assert hidden == 197


def test_wide_characters_do_not_shift_the_columns(trace_of: Callable[..., xr.Dataset]) -> None:
    from rich.cells import cell_len

    text = printed(grid_view(trace_of([["日本語", "a"]]), site="mlp_out"))
    rows = [line for line in text.splitlines() if "·日本語" in line or "1·a" in line]
    assert len({cell_len(line) for line in rows}) == 1


def test_three_sites_print_under_one_heading_and_one_legend(trace: xr.Dataset) -> None:
    text = printed(grid_views(trace), width=200)
    assert text.count("“The Eiffel Tower is in”") == 1
    assert [text.index(s) for s in ("resid_post", "mlp_out", "attn_out")] == sorted(
        text.index(s) for s in ("resid_post", "mlp_out", "attn_out")
    )
    assert text.count("+ = restoring raises p(␣Paris)") == 1


def test_without_colours_the_legend_names_none(trace: xr.Dataset) -> None:
    view = grid_view(trace, site="mlp_out")
    assert "colours" in printed(view, color=True)
    assert "colours" not in printed(view)
    assert "cells in hundredths" in printed(view)


def test_thirty_columns_show_sign_and_size_without_colours(
    trace_of: Callable[..., xr.Dataset],
) -> None:
    data = trace_of(layers=8)
    data["indirect_effect"][:] = 0.0
    data["indirect_effect"][0, 1, 2, 4] = 0.8
    data["indirect_effect"][0, 1, 5, 4] = -0.8
    data["indirect_effect"][0, 1, 6, 4] = -0.25
    view = grid_view(data, site="mlp_out")
    text = printed(view, width=30)
    tower = next(line for line in text.splitlines() if "4·␣Tower" in line)
    cells = tower.split("Tower ")[1]
    assert [cells[i : i + 2] for i in range(0, 14, 2)] == [
        *["  "] * 2,
        "██",
        *["  "] * 2,
        "##",
        "--",
    ]
    assert "hundredths" not in text
    flat = " ".join(text.split())
    assert "░▒▓█ up to 0.800, -=≡# down to -0.800" in flat
    assert max(map(len, text.splitlines())) <= 30
    colored = printed(view, width=30, color=True)
    assert "#" not in colored
    assert "▒▒" not in colored and "░░" in colored
