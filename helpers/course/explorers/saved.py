"""Frames beyond the presets, saved with an explorer, so that more of it is alive without Python."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

LONG = 60  # characters of JSON from which on what is repeated is saved once
WHOLE = {"header", "pick", "box"}  # the keys by which one knows a table, a card, a box


def saved(
    draw: Callable[[dict], Mapping[str, Any]], states: Iterable[dict[str, Any]]
) -> dict[str, str]:
    """Draw the frames of `states` as an explorer's `data`: pairs of a state and its frame, as JSON.

    What is long and may be repeated, such as a picture, stands once in `pool`: {"$": its index}.
    """
    pool: dict[str, int] = {}

    def shared(part: Any) -> Any:
        whole = isinstance(part, str) or (isinstance(part, Mapping) and WHOLE & part.keys())
        text = json.dumps(part, ensure_ascii=False, separators=(",", ":"))
        if whole and len(text) > LONG:
            return {"$": pool.setdefault(text, len(pool))}
        if isinstance(part, Mapping):
            return {name: shared(value) for name, value in part.items()}
        return [shared(each) for each in part] if isinstance(part, list) else part

    frames = [[state, shared(draw(state))] for state in states]
    frames = json.dumps(frames, ensure_ascii=False, separators=(",", ":"))
    return {"frames": frames, "pool": f"[{','.join(pool)}]"}
