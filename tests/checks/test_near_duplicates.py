import io

import numpy as np
import pytest
from PIL import Image

from onsight.checks import near_duplicates
from onsight.checks.near_duplicates import VARIANTS, candidates, find_pairs
from onsight.data.load import load_dataset


def resized(image, side):
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((side, side), Image.Resampling.BILINEAR))


def saved_as_jpeg(image, rng):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=50)
    return np.asarray(Image.open(file).convert("RGB"))


def cropped(image, rng):
    top, bottom, left, right = rng.integers(0, 3, 4)
    if not top + bottom + left + right:
        left = 1
    side = len(image)
    return resized(image[top : side - bottom, left : side - right], side)


def brightened(image, rng):
    return np.clip(np.rint(image * rng.choice([0.9, 1.1])), 0, 255).astype(np.uint8)


COPIES = {
    "mirrored": lambda image, rng: image[:, ::-1],
    "JPEG 50": saved_as_jpeg,
    "brightness": brightened,
    "crop": cropped,
    "grey": lambda image, rng: np.asarray(Image.fromarray(image).convert("L").convert("RGB")),
}


def plant(images, count, rng):
    """Return `images` followed by near-duplicates of `count` of them, each kind in turn, and the indices of these."""
    bases = rng.choice(len(images), count, replace=False)
    kinds = [*COPIES.values()]
    copies = [kinds[number % len(kinds)](images[base], rng) for number, base in enumerate(bases)]
    return np.concatenate([images, np.stack(copies)]), bases


def drawn(count, rng, side=32):
    """Return random images: noise at several scales, so that neighbouring pixels are similar as in photos."""
    images = np.zeros((count, side, side, 3), np.float32)
    for scale in (2, 4, 8, 16, 32):
        for image, noise in zip(images, rng.normal(size=(count, scale, scale)).astype(np.float32), strict=True):
            image += np.asarray(Image.fromarray(noise).resize((side, side), Image.Resampling.BILINEAR))[..., None]
    images *= rng.uniform(0.3, 1, (count, 1, 1, 3)).astype(np.float32)
    return np.clip(128 + 40 * images, 0, 255).astype(np.uint8)


def radiographs(count, rng, side=64):
    """Return simulated chest radiographs: one anatomy, whose position, size, ribs and brightness vary a little."""
    rows, columns = np.mgrid[:side, :side] / (side - 1) * 2 - 1
    images = []
    for _ in range(count):
        bend = [resized_floats(rng.normal(0, 0.02, (4, 4)), side) for _ in range(2)]
        across, down = (columns + bend[0]) * rng.normal(1, 0.025), (rows + bend[1]) * rng.normal(1, 0.025)
        body = 1 / (1 + np.exp(25 * (abs(across) - 0.92)))
        lungs = 1 / (1 + np.exp(7 * (((abs(across) - 0.42) / 0.3) ** 2 + (down / 0.68) ** 2 - 1)))
        heart = 1 / (1 + np.exp(6 * (((across - 0.14) / 0.3) ** 2 + ((down - 0.32) / 0.34) ** 2 - 1)))
        ribs = np.clip(np.cos(down * rng.normal(10.5, 0.25) + 5 * abs(across) ** 1.6) - 0.35, 0, 1)
        clouds = sum(resized_floats(rng.normal(0, 0.02, (scale, scale)), side) for scale in (8, 16, 32))
        dense = 0.72 * body - 0.42 * lungs * (1 - 0.8 * heart) + 0.16 * np.exp(-((across / 0.09) ** 2))
        dense += 0.12 * ribs * body + clouds * body
        images.append(rng.normal(110, 8) + 200 * (dense - 0.45) + rng.normal(0, 2, (side, side)))
    return np.repeat(np.clip(images, 0, 255).astype(np.uint8)[..., np.newaxis], 3, axis=3)


def resized_floats(values, side):
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC))


def as_set(pairs):
    return {(min(pair), max(pair)) for pair in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)}


def test_planted_copies_are_found_and_nothing_else():
    rng = np.random.default_rng(0)
    images, bases = plant(drawn(500, rng), 100, rng)
    found = as_set(find_pairs(images))
    planted = {(int(base), 500 + number) for number, base in enumerate(bases)}
    assert len(found & planted) >= 98
    assert not found - planted


def test_images_that_all_look_alike_are_told_from_copies():
    rng = np.random.default_rng(0)
    originals = radiographs(120, rng)
    copies = [saved_as_jpeg(originals[0], rng), originals[1][:, ::-1], brightened(originals[2], rng)]
    found = find_pairs(np.concatenate([originals, np.stack(copies)]))
    assert found.limit > 0.95
    assert as_set(found) == {(0, 120), (1, 121), (2, 122)}
    assert found.sure.all()


@pytest.mark.slow
def test_planted_copies_among_20000_real_images(real_data):
    rng = np.random.default_rng(0)
    dataset = load_dataset("cifar10", real_data)
    chosen = rng.choice(len(dataset), 20_000, replace=False)
    before = as_set(find_pairs(dataset.images[chosen]))
    images, bases = plant(dataset.images[chosen], 500, rng)
    found = as_set(find_pairs(images))
    planted = {(int(base), 20_000 + number) for number, base in enumerate(bases)}
    assert len(found & planted) >= 0.95 * 500

    # If the original has a near-duplicate already, its copy is a near-duplicate of that one too. Two copies of such a
    # pair are near-duplicates of each other as well.
    def source(index):
        return int(bases[index - 20_000]) if index >= 20_000 else index

    new = {tuple(sorted(map(source, pair))) for pair in found - before - planted}
    false = {pair for pair in new - before if pair[0] != pair[1]}
    assert len(false) <= 20


@pytest.mark.parametrize("variant", range(8))
@pytest.mark.parametrize("side", [32, 64])
def test_the_variant_of_mirrored_and_rotated_copies_is_reported(variant, side):
    images = drawn(20, np.random.default_rng(1), side)
    turned = images[3].swapaxes(0, 1) if variant & 4 else images[3]
    turned = turned[::-1] if variant & 2 else turned
    turned = turned[:, ::-1] if variant & 1 else turned
    found = find_pairs(np.concatenate([images, turned[np.newaxis]]))
    assert as_set(found) == {(3, 20)}
    assert VARIANTS[found.variant[0]] == VARIANTS[variant]
    assert found.score[0] > 0.99


def test_images_without_details_form_no_pairs():
    rows = np.linspace(60, 200, 32)
    skies = np.stack([np.clip(np.repeat((rows + shift)[:, None, None], 32, 1), 0, 255) for shift in range(20)])
    skies = np.repeat(skies, 3, axis=3) + np.random.default_rng(0).normal(0, 3, (20, 32, 32, 3))
    assert not len(find_pairs(skies.clip(0, 255).astype(np.uint8)).first)
    assert not len(find_pairs(np.zeros((5, 32, 32, 3), np.uint8)).first)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_than_three_images_work(count):
    assert not len(find_pairs(drawn(2, np.random.default_rng(0))[:count]).first)


def test_sizes_that_are_not_a_multiple_of_32_are_refused():
    with pytest.raises(ValueError, match=r"\(40, 40\) pixels; expected squares whose side is a multiple of 32"):
        find_pairs(np.zeros((3, 40, 40, 3), np.uint8))


def test_candidates_of_synthetic_hashes():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2**63, 20_000, np.uint64)
    flips = sum(np.uint64(1) << rng.integers(0, 63, 500, np.uint64) for _ in range(3))
    codes[:500] = codes[-500:] ^ flips
    found = {
        (int(a), int(b)) for _, asking, other in candidates(codes, [codes]) for a, b in zip(asking, other, strict=True)
    }
    assert np.mean([(i, 19_500 + i) in found or (19_500 + i, i) in found for i in range(500)]) > 0.95
    assert all(a != b for a, b in found)
    assert all(bin(int(codes[a] ^ codes[b])).count("1") <= near_duplicates.DISTANCE for a, b in list(found)[:200])


@pytest.mark.parametrize(("upright", "least"), [(True, 0.95), (False, 0.55)])
def test_upright_copies_are_looked_up_in_more_tables(upright, least):
    """Ten of 63 bits differ. Twelve tables find 66 % of such copies, and were used for all until 2026-11-28."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2**63, 20_000, np.uint64)
    bits = np.stack([rng.choice(63, 10, replace=False) for _ in range(500)]).astype(np.uint64)
    codes[:500] = codes[-500:] ^ (np.uint64(1) << bits).sum(axis=1, dtype=np.uint64)
    nothing = rng.integers(0, 2**63, len(codes), np.uint64)
    found = set()
    for number, asking, other in candidates(codes, [codes, nothing] if upright else [nothing, codes]):
        if (number == 0) == upright:
            found |= set(zip(asking.tolist(), other.tolist(), strict=True))
    share = np.mean([(i, 19_500 + i) in found or (19_500 + i, i) in found for i in range(500)])
    assert least < share < least + 0.2


def test_a_pair_that_aligns_in_one_direction_only_is_scored_by_that_one(monkeypatch):
    images = drawn(20, np.random.default_rng(1))
    copies = np.concatenate([images, cropped(images[3], np.random.default_rng(2))[np.newaxis]])
    aligned = near_duplicates._align
    calls = []

    def first_fails(upper, lower, moves):
        calls.append(len(upper))
        laid, seen, moved = aligned(upper, lower, moves)
        return (np.roll(laid, 16, axis=1) if len(calls) == 1 else laid), seen, moved

    monkeypatch.setattr(near_duplicates, "_align", first_fails)
    assert as_set(find_pairs(copies)) == {(3, 20)}


def test_the_cost_of_a_hash_does_not_depend_on_the_number_of_equal_hashes():
    # All hashes are equal: a bucket would hold all of them, but a position in a table still has eight neighbours.
    codes = np.full(5_000, 7, np.uint64)
    assert all(len(asking) <= 2 * near_duplicates.WINDOW * len(codes) for _, asking, _ in candidates(codes, [codes]))
