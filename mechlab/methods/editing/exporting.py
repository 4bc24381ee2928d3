"""An edited model as a Hugging Face folder that plain transformers loads."""

import json
import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from huggingface_hub import save_torch_state_dict

from mechlab.errors import StoreError
from mechlab.methods.editing.edits import Edit
from mechlab.models.fingerprint import bare_weights

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["export"]


def export(model: "Model", edit: Edit | Sequence[Edit], folder: str | Path) -> Path:
    """Write the edited model, with its tokenizer, as a folder for `from_pretrained`.

    The folder appears complete or not at all. `mechlab_edit.json` in it says what was changed.

    Args:
        model: the model that the edit was made on; left bitwise as found.
        edit: one edit, or several that are composed in this order.
        folder: where to write; it must not exist, or be empty.

    Returns:
        The folder.

    Raises:
        StoreError: when the folder is not empty or cannot be written.
        ModelError: when the edit does not belong to the model; see `Edit.applied`.
    """
    edits = (edit,) if isinstance(edit, Edit) else tuple(edit)
    place = Path(folder)
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise StoreError(
            f"{place.name} is there already and not empty.\n  Allowed: a new or empty folder.\n"
            "  Choose another one, or remove it."
        )
    temporary = place.with_name(f".{place.name}.{token_hex(4)}")
    try:
        temporary.mkdir(parents=True)
        with ExitStack() as stack:
            for index, one in enumerate(edits):
                stack.enter_context(one.applied(model, on_top=index > 0))
            _write(model, temporary)
        about = [_about(one) for one in edits]
        text = json.dumps({"model": model.name, "edits": about}, indent=1, ensure_ascii=False)
        (temporary / "mechlab_edit.json").write_text(text, encoding="utf-8")
        os.replace(temporary, place)  # noqa: PTH105 - an empty folder may stand there
    except OSError as err:
        raise StoreError(
            f"{place.name} cannot be written: {err.strerror or err}.\n"
            "  Allowed: a folder on a disk with room for the weights.\n"
            "  Make space, or choose another place."
        ) from err
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return place


def _write(model: "Model", folder: Path) -> None:
    weights = bare_weights(model.hf)
    tied = _name_of_embedding(model)
    if tied is not None and tied not in weights:  # kept under the head's name, which is not read
        same = [k for k, v in weights.items() if v.data_ptr() == _embedding(model).data_ptr()]
        weights[tied] = weights.pop(same[0])
    model.hf.config.save_pretrained(folder)
    if getattr(model.hf, "generation_config", None) is not None:
        model.hf.generation_config.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    save_torch_state_dict(own, str(folder), metadata={"format": "pt"})


def _embedding(model: "Model") -> Any:
    return model.hf.get_input_embeddings().weight.data


def _name_of_embedding(model: "Model") -> str | None:
    place = _embedding(model).data_ptr()
    names = [
        name.replace("_original_component.", "")
        for name, tensor in model.hf.state_dict().items()
        if tensor.data_ptr() == place and "head" not in name
    ]
    return names[0] if names else None


def _about(edit: Edit) -> dict[str, Any]:
    return {
        "digest": edit.digest,
        "layers": list(edit.layers),
        "sites": [delta.site for delta in edit.deltas],
        "norm": edit.norm,
        "requests": [request.to_json() for request in edit.requests],
        "made_on_fingerprint": edit.fingerprint,
    }
