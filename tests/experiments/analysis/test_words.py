"""Numbers in words: rounded, with their sign, and none where there is no number; a word only for what is sure."""

import numpy as np
import pandas as pd
import pytest

from experiments.analysis.results import ResultsError
from experiments.analysis.words import interval, less, mean, percent, side, span, word

SEEDS = [0.95, 1.0, 1.05]


def test_a_mean_is_rounded_and_signed():
    assert mean(SEEDS) == "1"
    assert mean(SEEDS, 2, unit=" nats") == "1.00 nats"
    assert mean([1234.5, 1235.5]) == "1,235"
    assert mean([-1.26], 1) == "−1.3"
    assert mean([-0.01], 1) == mean([0.0], 1) == "0.0", "no minus zero"
    assert [mean([x], 1, signed=True) for x in (3.7, -3.7)] == ["+3.7", "−3.7"]
    assert percent([0.811, 0.813]) == "81 %"
    assert percent([0.8125], 1) == "81.2 %"


def test_an_interval_is_that_of_95_per_cent_and_one_seed_has_none():
    assert interval(SEEDS, 2) == "1.00 [0.88, 1.12]"  # 0.05 / sqrt(3) times Student's 4.303
    assert interval([0.3, 0.3], 1, times=100, unit=" %") == "30.0 [30.0, 30.0] %"
    assert interval([0.3], 1) == "0.3"


def test_a_span_says_what_is_written_alike_once():
    assert span([0.02, 0.051, 0.04], times=100, unit=" %") == "2 to 5 %"
    assert span([1.01, 0.99]) == "1"


@pytest.mark.parametrize("said", [mean, percent, interval, span])
@pytest.mark.parametrize("values", [[], [1.0, np.nan], [np.inf]])
def test_without_a_number_there_are_no_words(said, values):
    with pytest.raises(ResultsError):
        said(values)


def test_a_word_is_chosen_by_what_is_sure_and_large_enough():
    words = ("worse", "as good", "better")
    assert word([1.0, 1.1, 0.9], words) == "better"
    assert word([-1.0, -1.1, -0.9], words) == "worse"
    assert word([1.0, -1.0, 2.0], words) == "as good"
    assert word([1.0, 1.1, 0.9], words, least=1.5) == "as good", "sure, but too small"
    assert word([5.0], words) == "as good", "one seed is no evidence"
    assert [side(np.array([1.0, 1.1]) * sign) for sign in (1, -1)] == [1, -1]


def test_a_difference_is_taken_on_the_seeds_of_both():
    one, other = pd.Series({0: 1.0, 1: 2.0, 2: 9.0}), pd.Series({1: 0.5, 0: 0.5})
    assert less(one, other).to_dict() == {0: 0.5, 1: 1.5}
