"""Content-addressed results: kept once, found again, safe against kills and second writers.

On disk, below the root:

    <method>/<key[:2]>/<key>/record.json           the result on a prompt set; written last
    <method>/<key[:2]>/<key>/data-<writer>.zarr/    its arrays (zarr format 3)
    <method>/<key[:2]>/<key>/remark.json           tags and note, where somebody wrote any
    <method>/prompts/<key[:2]>/<key>/...            the result on one prompt, in the same form
    .../journal/                                    batches of a run that is under way
    leases/<key>.json                               who computes what right now
    models/<digest>/                                a model that a study trained, and its recipe

A folder without a valid `record.json` is debris: readers ignore it, `Store.clean` removes it.
"""

from mechlab.store.cost import TraceCost, trace_cost
from mechlab.store.lease import Running
from mechlab.store.records import DamagedEntry, DamagedEntryWarning, Entry, NewerEntry
from mechlab.store.remarks import Remark
from mechlab.store.store import Damage, Store

__all__ = [
    "Damage",
    "DamagedEntry",
    "DamagedEntryWarning",
    "Entry",
    "NewerEntry",
    "Remark",
    "Running",
    "Store",
    "TraceCost",
    "trace_cost",
]
