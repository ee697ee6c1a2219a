"""Where the ROIs of an NWB 2 file lie in the field of view."""

from __future__ import annotations

import h5py
import numpy as np

from poyo_ssl.recordings.untrusted_files.hdf5 import has_dataset

_MOST_PIXELS = 10**7
"""Pixels of all masks together; more would take long to read for a figure."""


def find_places(segmentation: h5py.Group, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Centres of ROIs as columns of the table of units: ``x_px`` and ``y_px``, (num_rois,) each.

    They are means of ``pixel_mask``, by the weight of the pixels. Pictures of whole fields
    (``image_mask``) are not read, which may be hundreds of megabytes.

    Args:
        segmentation: The table of ROIs.
        rows: Rows of the ROIs in it, (num_rois,).

    Returns:
        Empty where the table does not tell, or gives all ROIs one and the same pixel, as files do
        that only look complete.
    """
    if not all(has_dataset(segmentation, name) for name in ("pixel_mask", "pixel_mask_index")):
        return {}
    mask, index = segmentation["pixel_mask"], segmentation["pixel_mask_index"]
    names = mask.dtype.names or ()
    if not {"x", "y", "weight"} <= set(names) or mask.ndim != 1 or not 0 < len(mask) < _MOST_PIXELS:
        return {}
    if index.ndim != 1 or index.dtype.kind not in "iu" or rows.max(initial=0) >= len(index):
        return {}
    ends = np.append(0, index[()].astype(np.int64))
    if np.diff(ends).min(initial=0) < 0 or ends[-1] > len(mask):
        return {}
    pixels = mask[()]
    weight = pixels["weight"].astype(float)
    total = np.append(0.0, np.cumsum(weight))
    places = {}
    for column, name in (("x_px", "x"), ("y_px", "y")):
        sums = np.append(0.0, np.cumsum(weight * pixels[name]))
        with np.errstate(invalid="ignore", divide="ignore"):
            centres = np.diff(sums[ends]) / np.diff(total[ends])
        places[column] = centres[rows]
    is_one_place = all(
        np.unique(centres[np.isfinite(centres)]).size < 2 for centres in places.values()
    )
    return {} if is_one_place and len(rows) > 1 else places
