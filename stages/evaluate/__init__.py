"""What a model can do: perplexity, lm-eval's tasks, sample continuations. Run once for each model of a study."""

import os

# The libraries below read these when they are imported, which is after this package is. All input is local files.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
# A bar of lm-eval's or of a library's would be redrawn a thousand times in a log; the stage's own are not silenced.
os.environ.setdefault("TQDM_DISABLE", "1")
