"""Pictures of the published marts, in notebooks and in the metadata of their assets."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from matplotlib.image import imread

from analytics_platform.catalog import Catalog
from analytics_platform.core.errors import ConfigurationError
from analytics_platform.reconcile.pictures import PICTURES


@pytest.mark.parametrize("what", PICTURES)
def test_every_picture_is_drawn_wide_enough_to_read(catalog: Catalog, what: str, tmp_path: Path) -> None:
    picture = catalog.plot(what, site="shop")
    pixels = imread(io.BytesIO(picture.png))
    assert pixels.shape[1] >= 600
    # Not an empty canvas: several colours beside the white.
    assert len({tuple(pixel) for row in pixels[::7] for pixel in row[::7].round(1)}) > 5
    assert picture.title.startswith("shop")
    assert picture.save(tmp_path / "picture.png").read_bytes() == picture._repr_png_() == picture.png


def test_a_picture_of_nothing_says_so(catalog: Catalog) -> None:
    with pytest.raises(ConfigurationError, match="nothing to draw"):
        catalog.plot("waterfall", "2031-01-01", site="shop")
    with pytest.raises(ConfigurationError, match="no picture 'pie'"):
        catalog.plot("pie", site="shop")
