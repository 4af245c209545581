"""Contents of scores.json for tests."""

from caloforge.io.scores import Scores


def entry(mean, std=0.0, floor=None, matched=None, particles=None, reason=""):
    """An entry of scores.json."""
    both = (
        {"mean": one, "std": 0.5, "splits": 10, "note": ""} if one is not None else None
        for one in (floor, matched)
    )
    floor, matched = both
    return {
        "values": [mean, mean],
        "mean": mean,
        "std": std,
        "floor": floor,
        "matched_floor": matched,
        "particles": particles,
        "reason": reason,
    }


def scores(name, groups, type="flow_matching", kind="generator", **more):
    """Contents of a scores.json of one set, "made"."""
    return {
        "format": 1,
        "name": name,
        "type": type,
        "kind": kind,
        "detector": "zn",
        "channels": "paper",
        "split": "canonical",
        "split_seed": 0,
        "particles": [],
        "part": "test",
        "seed": 0,
        "repeats": 2,
        "settings": {},
        "parameters": 100,
        "sets": {
            "made": {"reference": {"path": "", "sha256": "", "rows": 4}, "generated": None, "groups": groups}
        },
        "timing": None,
        "sweep": [],
    } | more


def typed(content):
    """What was written as a scores.json, as it is read."""
    return Scores.model_validate(content)


def times(median=1.0):
    """The spread of a time."""
    return {"min": median, "median": median, "max": median}


def timing(median=1.0, batch_size=8):
    """A timing."""
    place = {"batch_size": batch_size, "threads": 1, "device": "cpu", "machine": "here"}
    return {"ms_per_event": times(median), **place}
