"""Logs of programs that showed gratings of 0 degrees from 1 to 2 s and of 90 from 3 to 4 s."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.io import savemat

PYCONTROL = """I Experiment name  : gratings
I Framework version : 1.8.1

S {"pause": 1, "degrees_0": 2, "degrees_90": 3}

E {"photodiode": 4}

P 0 text of the task's own
D 500 1
D 1000 2
D 1080 4
D 2000 1
D 3000 3
D 3100 4
D 4000 1
"""
PYCONTROL_TABLE = """time\ttype\tsubtype\tcontent
0.000\tinfo\texperiment_name\tgratings
0.500\tstate\t\tpause
1.000\tstate\t\tdegrees_0
1.080\tevent\tinput\tphotodiode
2.000\tstate\t\tpause
3.000\tstate\t\tdegrees_90
3.100\tevent\tinput\tphotodiode
4.000\tstate\t\tpause
"""
PSYCHOPY = """trials.thisN,orientation,clip,trigger.started,grating.started,grating.stopped,
,,,0.5,,,
0,0,a,,1.0,2.0,
1,90,b,,3.0,4.0,
"""
BONSAI = """2026-05-04T10:00:00.5000000+02:00,pause,
2026-05-04T10:00:01.0000000+02:00,degrees_0,a
2026-05-04T10:00:03.0000000+02:00,degrees_90,b
"""
BONSAI_SECONDS = "name,time,duration\npause,0.5,0.5\ndegrees_0,1.0,1.0\ndegrees_90,3.0,1.0\n"


def write_bpod(path: Path, *, one_trial: bool = False) -> Path:
    def trial(start: float) -> dict:
        states = {"Stimulus": [start, start + 1.0], "Punish": [np.nan, np.nan]}
        return {"States": states, "Events": {"BNC1High": [0.1, 0.2]}}

    session = {
        "RawEvents": {"Trial": [trial(0.5), trial(0.5)]},
        "TrialStartTimestamp": [0.5, 2.5],
        "TrialTypes": [0, 90],
        "nTrials": 2,
    }
    if one_trial:
        session["RawEvents"]["Trial"] = trial(0.5)
        session |= {"TrialStartTimestamp": 0.5, "TrialTypes": 0, "nTrials": 1}
    savemat(path, {"SessionData": session})
    return path
