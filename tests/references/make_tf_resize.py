"""What `tf.image.resize` makes of images, stored in tf_resize.npz beside this file.

Google's evaluation pipeline (vit_jax/input_pipeline.py) resizes to a square with tf.image.resize, bilinear and without
antialiasing, and then takes (x - 127.5) / 127.5. Needs tensorflow-cpu, which is no dependency of vitreous; made with
tensorflow 2.21.0:

    python tests/references/make_tf_resize.py

For each pair of sizes tf_resize.npz holds HxW-to-HxW/plain (new height, new width, 3), float32 from 0 to 255, and for
the enlargement and the reduction by odd factors also HxW-to-HxW/antialiased. The images are not stored: they are
`draw_pixels(height, width)`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf
from drawn import draw_pixels

SIZES = (((17, 31), (24, 24)), ((17, 31), (64, 64)), ((50, 40), (24, 24)), ((50, 40), (64, 64)))


def main() -> None:
    found = {}
    for old, new in SIZES:
        pixels = draw_pixels(*old)
        name = f"{old[0]}x{old[1]}-to-{new[0]}x{new[1]}"
        found[f"{name}/plain"] = tf.image.resize(pixels, new).numpy()
        if new == (24, 24):
            found[f"{name}/antialiased"] = tf.image.resize(pixels, new, antialias=True).numpy()
    place = Path(__file__).with_name("tf_resize.npz")
    np.savez_compressed(place, **found)
    print(f"{place}: {place.stat().st_size:,} bytes, tensorflow {tf.__version__}")


if __name__ == "__main__":
    main()
