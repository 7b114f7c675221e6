"""The colours of heat maps rise evenly from no tint, and the legend shows the colours that are drawn."""

import numpy as np

from onsight.imaging import heat


def test_the_colours_are_those_of_inferno():
    from matplotlib import colormaps

    share = np.linspace(0, 1, 50)
    expected = 255 * colormaps["inferno"](0.25 + 0.7 * share)[:, :3]
    assert np.abs(heat.colours(share) - expected).max() < 15  # of 255


def test_low_influence_has_no_tint():
    assert heat.opacity(np.array([0, 0.1, heat.CLEAR])).tolist() == [0, 0, 0]
    assert (np.diff(heat.opacity(np.linspace(heat.CLEAR, 1, 20))) > 0).all()
    np.testing.assert_array_equal(heat.relative(np.array([[0.6, 0.8]])), [[0, 1]])
    np.testing.assert_array_equal(heat.relative(np.full((2, 2), 0.7)), 0)


def test_the_legend_goes_from_grey_to_bright_colour():
    bar = heat.legend(100, 4).astype(int)
    assert bar.shape == (4, 100, 3)
    assert np.ptp(bar[:, :25], axis=2).max() == 0
    assert np.ptp(bar[0, -1]) > 100
    assert heat.css_gradient().startswith("linear-gradient(90deg, rgb(150 150 150), ")
