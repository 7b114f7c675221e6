import pytest

from onsight.imaging.fit import GEOMETRIES, SENTENCES, place


def test_each_fit_has_a_geometry_and_a_sentence():
    assert GEOMETRIES["cut"] == "centre square, scaled to image_size (antialiased)"  # of model.json files that exist
    assert set(GEOMETRIES) == set(SENTENCES) == {"cut", "pad"}
    assert len(set(GEOMETRIES.values())) == 2
    assert "scaled to 32" in SENTENCES["cut"].format(size=32)
    assert "scaled to 32, centred on a square of grey (128, 128, 128)" in SENTENCES["pad"].format(size=32)


@pytest.mark.parametrize(
    ("height", "width", "size", "found"),
    [
        (32, 50, 32, (0, 9, 32, 32, 32, 32, 0, 0)),
        (33, 50, 32, (0, 8, 33, 33, 32, 32, 0, 0)),
        (5000, 1, 224, (2499, 0, 1, 1, 224, 224, 0, 0)),
    ],
)
def test_cut_takes_the_centre_square(height, width, size, found):
    assert place(height, width, size, "cut") == found


@pytest.mark.parametrize(
    ("height", "width", "size", "found"),
    [
        (32, 32, 32, (0, 0, 32, 32, 32, 32, 0, 0)),
        (20, 40, 20, (0, 0, 20, 40, 10, 20, 5, 0)),  # five rows above, five below
        (40, 20, 20, (0, 0, 40, 20, 20, 10, 0, 5)),
        (22, 40, 20, (0, 0, 22, 40, 11, 20, 4, 0)),  # four rows above, five below
        (21, 40, 20, (0, 0, 21, 40, 11, 20, 4, 0)),  # 10.5 is rounded up
        (3, 4, 32, (0, 0, 3, 4, 24, 32, 4, 0)),  # enlarged
        (1, 5000, 224, (0, 0, 1, 5000, 1, 224, 111, 0)),  # never less than a row
        (20000, 1, 224, (0, 0, 20000, 1, 224, 1, 0, 111)),
        (1, 1, 8, (0, 0, 1, 1, 8, 8, 0, 0)),
    ],
)
def test_pad_takes_all_and_centres_it(height, width, size, found):
    assert place(height, width, size, "pad") == found
