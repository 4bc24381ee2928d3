"""The request that a stored edit answers: what the page's fields say of it.

Nothing here touches Streamlit.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import mechlab as ml
from edit_request import OWN, FactEditRequest
from pair_request import model_fields_of

__all__ = ["request_of"]

_NOT_FIELDS = ("new_object", "layer")
"""Options whose namesakes among the fields mean something else, or are filled otherwise."""


def request_of(story: Any, options: Mapping[str, Any], model: str) -> FactEditRequest:
    """Return the request that a stored result answers.

    Args:
        story: the result; of several cases the first one counts.
        options: as the store recorded them.
        model: what to give to `load_model`.
    """
    texts = {
        name: str(story[f"request_{name}"].values[0])
        for name in ("template", "subject", "target", "target_true")
    }
    chosen, layers = options.get("layer"), options.get("layers")
    more: dict[str, Any] = {}
    if layers != [chosen]:
        more |= {"layers": layers, "layer": chosen}
    for name, usual in FactEditRequest.OTHER_DEFAULTS.items():
        if options.get(name, usual) != usual:
            more[name] = options[name]
    known = {
        name: options[name]
        for name in FactEditRequest.names()
        if name in options and name not in _NOT_FIELDS
    }
    request = FactEditRequest(
        model=model,
        **model_fields_of(story),
        template=texts["template"],
        subject=texts["subject"],
        target=texts["target_true"],
        new_object=texts["target"],
        layer=int(story.attrs["chosen_layer"]),
        **known,
    )
    request = _with_settings(request, options.get("settings"), more)
    return _with_prompts(replace(request, more=json.dumps(more, sort_keys=True)), story)


def _with_settings(
    request: FactEditRequest, settings: Mapping[str, Any] | None, more: dict[str, Any]
) -> FactEditRequest:
    """Fill in the settings that were given; those without a field are carried along."""
    if settings is None:
        return request
    offered = {name: settings[name] for name in (*OWN, "clamp") if name in settings}
    found = replace(request, own=True, alone="key_templates" in settings, **offered)
    if found.settings != dict(settings):
        more["settings"] = dict(settings)
    return found


def _with_prompts(request: FactEditRequest, story: Any) -> FactEditRequest:
    """Fill in typed paraphrases and neighbours: those that the table does not have."""
    texts = story["prompt_text"].isel(case=0)
    asked = {
        kind: [str(text) for text in texts.sel(prompt_kind=kind).values if str(text)]
        for kind in ("paraphrase", "neighbourhood")
    }
    try:
        usual = request.case()
    except ml.PromptError:
        return request
    if all(asked[kind] == [one.prompt for one in usual.prompts_of(kind)] for kind in asked):
        return request
    about = [
        str(text) for text in story["about"].isel(case=0).sel(prompt_kind="neighbourhood").values
    ]
    lines = [
        f"{prompt} | {kept}" for prompt, kept in zip(asked["neighbourhood"], about, strict=False)
    ]
    return replace(request, paraphrases="\n".join(asked["paraphrase"]), neighbours="\n".join(lines))
