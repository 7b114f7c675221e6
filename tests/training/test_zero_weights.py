import numpy as np
import pytest

from onsight.training.zero_weights import RAMP, scheduled_sparsity, smallest_masked, zero_share


def test_the_scheduled_sparsity_rises_to_its_final_value_and_stays():
    shares = [scheduled_sparsity(0.8, done) for done in np.linspace(0, 1, 21)]
    assert shares[0] == 0
    assert shares == sorted(shares)
    assert scheduled_sparsity(0.8, RAMP / 2) == pytest.approx(0.8 * (1 - 0.5**3))  # Zhu and Gupta 2017, equation 1
    assert {scheduled_sparsity(0.8, done) for done in (RAMP, 0.9, 1.0)} == {0.8}


def test_one_threshold_for_all_kernels():
    kernels = [np.float32([[1, -2], [3, 4]]), np.float32([0.5, -0.1, 9, 8])]
    first, second = smallest_masked(kernels, 0.5)
    assert first.tolist() == [[0, 0], [1, 1]]
    assert second.tolist() == [0, 0, 1, 1]
    assert zero_share([first, second]) == 0.5


def test_zeros_stay_zero_and_ties_are_cut_at_the_exact_share():
    kernel = np.float32([0, 0, 0, 5, 6, 7, 8, 9])
    assert smallest_masked([kernel], 0.125)[0].tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    assert smallest_masked([np.ones(8, np.float32)], 0.5)[0].sum() == 4
