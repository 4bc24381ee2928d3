"""Interventions are data: they compare by content and refuse what means nothing."""

import numpy as np
import pytest

from mechlab.errors import OptionError, SiteError
from mechlab.hooks import Ablate, AddNoise, Block, Freeze, FrozenArray, Patch, Site, Steer
from mechlab.hooks import single_sites as spelled_out


def test_equal_content_is_equal_and_hashes_alike() -> None:
    site = Site("mlp_out", 3, pos=5)
    assert Patch(site, 0) == Patch(Site("mlp_out", 3, pos=5), 0)
    assert len({Patch(site, 0), Patch(site, 0), Patch(site, 1)}) == 2
    a, b = (Steer(site, FrozenArray(np.arange(4.0))) for _ in range(2))
    assert a == b and hash(a) == hash(b)


def test_arrays_differ_by_one_number_dtype_or_shape() -> None:
    values = np.zeros((100, 100), dtype=np.float32)
    changed = values.copy()
    changed[57, 3] = 1e-30
    variants = [values, changed, values.astype(np.float64), values.reshape(50, 200)]
    assert len({FrozenArray(variant) for variant in variants}) == 4


def test_frozen_arrays_do_not_follow_their_source() -> None:
    values = np.zeros(3)
    frozen = FrozenArray(values)
    values[0] = 1
    assert frozen.values[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        frozen.values[0] = 1


def test_a_freeze_is_one_patch_per_site() -> None:
    sites = (Site("mlp_out", 0, pos=1), Site("mlp_out", 1, pos=1))
    assert list(spelled_out(Freeze(sites, 2))) == [Patch(site, 2) for site in sites]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Site("resid", 0), SiteError, "unknown site 'resid'"),
        (lambda: Site("mlp_out"), SiteError, "needs a layer"),
        (lambda: Site("embed", 0), SiteError, "has no layer"),
        (lambda: Site("mlp_out", 0, head=1), SiteError, "has no heads"),
        (lambda: Site("mlp_out", -1), OptionError, "layer=-1 is negative"),
        (lambda: Ablate(Site("z", 0), "median"), OptionError, "unknown kind"),  # type: ignore[arg-type]
        (lambda: Ablate(Site("z", 0), "mean"), OptionError, "'mean' takes reference"),
        (lambda: AddNoise(Site("embed"), 3, 2, 1.0, 0, 0), OptionError, "empty or negative"),
        (lambda: AddNoise(Site("embed"), 0, 1, float("nan"), 0, 0), OptionError, "finite"),
        (lambda: AddNoise(Site("z", 0), 0, 1, 1.0, 0, 0), SiteError, "acts on a span"),
        (lambda: Block(0, (), (1,)), OptionError, "at least one query"),
        (lambda: Block(0, (1,), (0, 1)), OptionError, "every key masked"),
        (lambda: Block(0, (1,), (0,), mode="drop"), OptionError, "unknown mode"),  # type: ignore[arg-type]
    ],
)
def test_what_means_nothing_is_refused_when_made(make: object, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        make()  # type: ignore[operator]


def test_cutting_all_keys_is_allowed_when_weights_are_zeroed() -> None:
    assert Block(0, (1,), (0, 1), mode="zero").site == Site("pattern", 0)
