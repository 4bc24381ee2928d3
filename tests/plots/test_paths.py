import numpy as np
import pytest
from synthetic_effects import heads, paths

from mechlab.errors import OptionError
from mechlab.plots import path_edges, path_graph, sender_grid, sender_views


def test_senders_stand_by_layer_heads_first_then_modules() -> None:
    data = paths()
    query, logits = sender_views(data)
    assert query.title == "to L1H0.q"
    assert logits.col_labels == ("0", "1", "MLP", "embed")
    mean = data.effect.mean("prompt").sel(receiver="logits")
    assert logits.values[1, 1] == pytest.approx(float(mean.sel(sender="L1H1")))
    assert logits.values[0, 2] == pytest.approx(float(mean.sel(sender="MLP 0")))
    assert logits.values[0, 3] == pytest.approx(float(mean.sel(sender="embed")))
    assert logits.describe(1, 1).startswith("L1H1: ")
    assert query.limits == logits.limits


def test_paths_that_do_not_exist_are_not_computed_and_said_so() -> None:
    query, logits = sender_views(paths())
    assert (query.state[1, :3] == 0).all()
    assert "no such path" in query.note and "no such path" not in logits.note
    assert logits.describe(1, 3).endswith("not applicable")


def test_the_strongest_receivers_are_drawn_and_the_rest_counted() -> None:
    data = paths()
    data["effect"][:, :4, 0] *= 100
    (view,) = sender_views(data, most=1)
    assert view.title == "to L1H0.q"
    assert "1 of 2 receivers" in view.note
    (named,) = sender_views(data, receiver="logits")
    assert named.title == "to logits"
    with pytest.raises(OptionError, match="no receiver 'L9H9'.*L1H0.q"):
        sender_views(data, receiver="L9H9")


def test_sets_of_senders_are_a_list() -> None:
    data = paths(1).isel(sender=[1, 2])
    kinds, none = ("sender", ["set", "set"]), ("sender", [-1, -1])
    data = data.assign_coords(sender=["L0H0+L1H0", "L0H1+L1H1"], sender_kind=kinds,
                              sender_layer=none, sender_head=none)  # fmt: skip
    (view,) = sender_views(data)
    assert view.col_labels == ("L0H0+L1H0", "L0H1+L1H1")
    assert view.shape == (1, 2)
    assert len(sender_grid(data).data) == 1


def test_the_graph_holds_the_strongest_edges_and_counts_the_others() -> None:
    data = paths()
    mean = data.effect.mean("prompt")
    edges, total = path_edges(data, most=3)
    assert total == int(mean.notnull().sum()) == 11
    sizes = sorted(np.abs(mean.values[np.isfinite(mean.values)]))[::-1]
    assert [abs(edge.effect) for edge in edges] == pytest.approx(sizes[:3])
    figure = path_graph(data, most=3)
    assert "3 of 11 paths" in figure.layout.title.text
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    assert len(lines) == 3
    widths = {trace.name: trace.line.width for trace in lines}
    assert max(widths, key=lambda words: widths[words]) == edges[0].words


def test_an_edge_is_red_when_it_raises_the_metric_and_blue_when_it_lowers_it() -> None:
    data = paths()
    up = {e.words for e in path_edges(data, most=11)[0] if e.effect > 0}
    colors = {t.name: t.line.color for t in path_graph(data, most=11).data if t.mode == "lines"}
    red = {colors[words] for words in up}
    blue = {color for words, color in colors.items() if words not in up}
    assert len(red) == len(blue) == 1
    assert red != blue


def test_inputs_of_a_head_share_its_node_and_edges_run_upwards() -> None:
    edges, _ = path_edges(paths(), most=11)
    nodes = {edge.receiver_name: edge.receiver for edge in edges}
    senders = {edge.sender_name: edge.sender for edge in edges}
    assert nodes["L1H0.q"] == senders["L1H0"]
    assert all(edge.sender.level < edge.receiver.level for edge in edges)
    labels = {a.text for a in path_graph(paths(), most=11).layout.annotations}
    assert labels == {*senders.keys() - {"MLP 0", "MLP 1"}, "MLP", "logits"}


def test_a_graph_needs_senders_and_receivers() -> None:
    with pytest.raises(OptionError, match="path graph cannot be drawn"):
        path_graph(heads())
    with pytest.raises(OptionError, match="sender grid cannot be drawn"):
        sender_grid(heads())
    with pytest.raises(OptionError, match="most=0"):
        path_graph(paths(), most=0)
