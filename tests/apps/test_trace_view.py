import numpy as np
import pytest
from synthetic_traces import make_trace

from components import selection
from trace_view import (
    AVERAGE,
    cell_of,
    fact_choices,
    grids,
    link_problems,
    little_to_restore,
    outlined,
    request_of,
    status_of,
    token_strip,
)

SITES = ["resid_post", "mlp_out", "attn_out"]


def two_facts():
    trace = make_trace([["<s>", "The", " cat"], ["<s>", "A", " dog", " ran"]])
    roles = np.array(
        [["before_subject", "before_subject", "last_subject", ""],
         ["before_subject", "before_subject", "last_subject", "last_token"]]
    )  # fmt: skip
    return trace.assign_coords(token_role=(("prompt", "pos"), roles))


def test_one_fact_is_shown_as_it_is_several_also_as_an_average() -> None:
    assert fact_choices(make_trace()) == ["0"]
    assert fact_choices(two_facts()) == [AVERAGE, "0", "1"]


def test_skipped_facts_do_not_make_an_average() -> None:
    trace = two_facts().assign_coords(status=("prompt", ["ok", "not known"]))
    assert fact_choices(trace) == ["0", "1"]
    assert status_of(trace, "1") == "not known"
    assert status_of(trace, "0") == "ok"


def test_the_average_has_roles_as_columns() -> None:
    views = grids(two_facts(), AVERAGE)
    assert [view.title.split(" ")[0] for view in views] == SITES
    assert (views[0].n, views[0].n_unit) == (2, "facts")
    assert "last subject" in views[0].col_labels
    assert views[0].shape[0] == 4


def test_only_the_grid_of_the_chosen_site_is_outlined() -> None:
    views = outlined(grids(make_trace(), "0"), SITES, "mlp_out", (2, 3))
    assert [view.selected for view in views] == [None, (2, 3), None]


def test_a_cell_says_what_its_effect_is_the_difference_of() -> None:
    trace = make_trace()
    cell = cell_of(trace, "0", grids(trace, "0"), site="mlp_out", layer=2, column=4)
    one = trace.isel(prompt=0)
    expected = one.restored_probability.sel(site="mlp_out", layer=2).isel(pos=4).mean()
    assert cell.restored == pytest.approx(float(expected))
    assert cell.effect == pytest.approx(cell.restored - cell.corrupted, abs=1e-6)
    assert cell.low < cell.effect < cell.high
    assert (cell.clean, cell.column, cell.scored) == (0.8, "4·␣Tower", " Paris")
    assert (cell.first_layer, cell.last_layer) == (1, 2)


def test_the_residual_stream_is_restored_in_one_layer() -> None:
    trace = make_trace()
    cell = cell_of(trace, "0", grids(trace, "0"), site="resid_post", layer=2, column=4)
    assert (cell.first_layer, cell.last_layer) == (2, 2)


def test_a_cell_of_the_average_has_no_probabilities() -> None:
    trace = two_facts()
    cell = cell_of(trace, AVERAGE, grids(trace, AVERAGE), site="mlp_out", layer=0, column=0)
    assert cell.computed
    assert cell.restored is None


def test_the_strip_marks_the_subject_and_leaves_out_padding() -> None:
    strip = token_strip(two_facts(), "0")
    assert [subject for _, subject in strip] == [False, False, True]
    assert strip[0][0] == "0·\\<s\\>"


def test_a_trace_whose_noise_changed_nothing_is_known_as_such() -> None:
    trace = make_trace()
    assert not little_to_restore(trace, "0")
    trace["total_effect"][:] = 0.05
    assert little_to_restore(trace, "0")
    assert not little_to_restore(trace, AVERAGE)


def test_a_result_turns_back_into_its_request() -> None:
    trace = make_trace()
    trace.attrs |= {
        "options": '{"sites": ["mlp_out"], "window": null, "samples": 5, "noise_scale": 2.5,'
        ' "seed": 7, "known_only": false, "sever": "mlp", "corruption": "gaussian"}',
        "model_dtype": "bfloat16",
        "model_revision": "step1000",
    }
    request = request_of(trace, "0", "toy")
    assert (request.model, request.dtype, request.revision) == ("toy", "bfloat16", "step1000")
    assert request.options == {
        "sites": ("mlp_out",), "window": None, "samples": 5, "noise_scale": 2.5, "seed": 7,
        "known_only": False, "sever": "mlp", "corruption": "gaussian",
    }  # fmt: skip
    assert request.subject == "Eiffel Tower"


def test_a_checkpoint_of_a_shipped_model_comes_back_as_one() -> None:
    trace = make_trace()
    trace.attrs |= {"model_source": "shipped", "model_revision": "500"}
    request = request_of(trace, "0", "echo")
    assert (request.checkpoint, request.revision) == (500, None)


def test_a_link_that_asks_for_too_much_is_told_what_there_is() -> None:
    link = {"layer": "999", "pos": "abc", "site": "z", "fact": "4", "run": "x"}
    counts = {"layer": 4, "pos": 7}
    problems = selection.link_problems(link, **counts) + link_problems(link, make_trace())
    assert problems == [
        "layer '999': this result has layer 0 to 3",
        "pos 'abc': this result has pos 0 to 6",
        "site 'z': this result has resid_post, mlp_out, attn_out",
        "fact '4': this result has 0 to 0",
    ]
    for odd in ("9" * 5000, "٣", "1.5", "-1", "", "³", "+1"):
        (problem,) = selection.link_problems({"layer": odd}, layer=4)
        assert problem.endswith("this result has layer 0 to 3"), odd[:9]
    fine = {"layer": "3", "pos": "0", "site": "mlp_out", "fact": "0"}
    assert selection.link_problems(fine, **counts) + link_problems(fine, make_trace()) == []
