"""The simplified context model of Ji-An et al. 2024 and the fit of heads' lag curves with it."""

from mechlab.methods.cmr.betas import convert_beta
from mechlab.methods.cmr.fit import fit_cmr
from mechlab.methods.cmr.gaussian import gaussian_fit
from mechlab.methods.cmr.human import crp_distance
from mechlab.methods.cmr.nulls import cmr_null, cmr_p_value
from mechlab.methods.cmr.table import TableSettings, crp_table, shipped_table

__all__ = [
    "TableSettings",
    "cmr_null",
    "cmr_p_value",
    "convert_beta",
    "crp_distance",
    "crp_table",
    "fit_cmr",
    "gaussian_fit",
    "shipped_table",
]
