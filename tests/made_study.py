"""Folders of studies for tests."""

import json

RATE, SCHEDULE = "model.optimizer.learning_rate", "model.optimizer.schedule"


def trial(number, state, value=None, validations=(), reason="", rate=1e-3):
    return {
        "number": number,
        "state": state,
        "value": value,
        "best_epoch": 2,
        "seconds": None if state == "running" else 3.0,
        "reason": reason,
        "parameters": {RATE: rate, SCHEDULE: "cosine"},
        "validations": [list(pair) for pair in validations],
    }


def write_study(folder, trials, **more):
    folder.mkdir()
    content = {
        "format": 1,
        "study": "made <b>&",
        "recipe": "made",
        "detector": "zn",
        "type": "flow_matching",
        "objective": "w1",
        "space": {
            "objective": "w1",
            "pruning": {},
            "parameters": {
                RATE: {"type": "float", "low": 1e-6, "high": 1e-2, "log": True},
                SCHEDULE: {"type": "categorical", "choices": ["constant", "cosine"]},
            },
        },
        "importance": {},
        "trials": trials,
    }
    (folder / "trials.json").write_text(json.dumps(content | more))
    return folder


TRIALS = [
    trial(0, "finished", 9.0, [(1, 8.0), (2, 9.0)]),  # the weights of epoch 2 were kept
    trial(1, "pruned", None, [(1, 20.0)], rate=1e-5),
    trial(2, "failed", reason="the loss became nan"),
    trial(3, "finished", 4.0, [(1, 7.0), (2, 4.0)], rate=2e-3),
    trial(4, "running"),
]
