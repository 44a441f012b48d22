"""A picture, a clip and a recording, as bytes."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image as Picture

from gpuflow.demo import samples

PNG = samples.picture("PNG", width=64, height=48)
PIXELS = np.asarray(Picture.open(io.BytesIO(PNG)).convert("RGB"))
CLIP = samples.clip(seconds=1.0)
SPEECH = samples.recording()
