"""The quality of a model: perplexity, lm-eval's tasks, sample continuations. Runs once for each model."""

import os

# The libraries below read these when they are imported, which is after this package is. All input is local files.
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
GIVEN = {name: os.environ[name] for name in OFFLINE if name in os.environ}  # what the user's environment says
os.environ.update(dict.fromkeys(OFFLINE, "1"))
# A bar of lm-eval's or of a library's would be redrawn a thousand times in a log; the stage's own are not silenced.
os.environ.setdefault("TQDM_DISABLE", "1")
