"""Is the twin equal to the bridge on this model? Tried before its first use."""

import weakref
from typing import TYPE_CHECKING

from mechlab.engine.generation.twin import Twin, make_twin

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["proven_twin"]

_twins: "weakref.WeakKeyDictionary[Model, Twin]" = weakref.WeakKeyDictionary()


def proven_twin(model: "Model") -> Twin:
    """Return a model's twin."""
    if model not in _twins:
        _twins[model] = make_twin(model)
    return _twins[model]
