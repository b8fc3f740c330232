"""The statistics of the caption-quality benchmark against values by hand, and verdicts on made-up figures."""

import math
import re

import numpy as np
import pytest
from scipy import stats

from benchmarks.caption_quality.claims import (
    claim_of_agreement,
    claim_of_efficiency,
    claim_of_gains,
    factor_sentence,
    judge_efficiency,
    judge_gain,
)
from benchmarks.caption_quality.statistics import (
    NOT_REACHED,
    Comparison,
    Efficiency,
    compare,
    data_efficiency,
    pairs_needed,
    summarize,
)


def test_the_standard_error_is_that_of_the_mean() -> None:
    summary = summarize([1.0, 2.0, 6.0])  # variance (4 + 1 + 9) / 2 = 7
    assert summary.mean == 3
    assert summary.standard_error == pytest.approx(math.sqrt(7 / 3))


def test_gain_and_effect_size_by_hand() -> None:
    c = compare([5.0, 6.0, 7.0], [2.0, 3.0, 4.0], larger_is_better=True)
    assert (c.gain, c.reference, c.relative_gain) == (3, 3, 1)
    assert c.effect_size == pytest.approx(3 * (1 - 3 / 15))  # pooled deviation 1, Hedges' correction with 4 degrees
    assert c.paired == pytest.approx((3, 3))  # every seed gains exactly 3
    reach = 2.7764451 * math.sqrt(2 / 3)  # t of 97.5 % with 4 degrees
    assert c.welch == pytest.approx((3 - reach, 3 + reach))


def test_the_interval_and_p_value_are_those_of_scipys_welch_test() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(10, 1, 4), rng.normal(9, 3, 4)
    c = compare(list(a), list(b), larger_is_better=True)
    reference = stats.ttest_ind(a, b, equal_var=False)
    assert c.p_value == pytest.approx(reference.pvalue)
    assert c.welch == pytest.approx(tuple(reference.confidence_interval()))
    assert c.paired == pytest.approx(tuple(stats.ttest_rel(a, b).confidence_interval()))


def test_at_the_ends_of_the_effect_sizes_interval_the_figures_seen_are_at_the_ends_of_what_is_likely() -> None:
    c = compare([5.0, 6.5, 7.0], [2.0, 3.0, 4.5], larger_is_better=True)
    shrink, root = 1 - 3 / 15, math.sqrt(3 / 2)
    t = stats.ttest_ind([5.0, 6.5, 7.0], [2.0, 3.0, 4.5]).statistic
    low, high = (end / shrink * root for end in c.effect_interval)
    assert stats.nct.ppf([0.975], 4, low) == pytest.approx(t, rel=2e-3)
    assert stats.nct.ppf([0.025], 4, high) == pytest.approx(t, rel=2e-3)
    assert c.effect_interval[0] < c.effect_size < c.effect_interval[1]


def test_a_smaller_error_is_a_gain_where_smaller_is_better() -> None:
    c = compare([0.8, 0.9], [1.0, 1.1], larger_is_better=False)
    assert c.gain == pytest.approx(0.2)
    assert c.relative_gain == pytest.approx(0.2 / 1.05)
    with pytest.raises(ValueError, match="found 1 and 1 figures"):
        compare([1.0], [2.0], larger_is_better=True)


def test_the_number_of_pairs_is_interpolated_against_its_logarithm() -> None:
    curve = {100: 10.0, 1000: 20.0, 10_000: 24.0}
    assert pairs_needed(curve, 15.0, larger_is_better=True) == pytest.approx(10**2.5)
    assert pairs_needed(curve, 22.0, larger_is_better=True) == pytest.approx(10**3.5)
    assert pairs_needed(curve, 5.0, larger_is_better=True) == 100
    assert pairs_needed(curve, 25.0, larger_is_better=True) == math.inf
    errors = {100: 1.0, 1000: 0.8}
    assert pairs_needed(errors, 0.9, larger_is_better=False) == pytest.approx(10**2.5)


def test_the_data_efficiency_factor_and_its_limits() -> None:
    better = {100: [10.0, 10.0], 1000: [20.0, 20.0]}

    def factor(worse: float) -> Efficiency:
        curve = {100: [5.0, 5.0], 1000: [worse, worse]}
        return data_efficiency(better, curve, larger_is_better=True, num_draws=50)

    assert factor(15.0).factor == pytest.approx(10**0.5)
    assert factor(15.0).interval == pytest.approx((10**0.5, 10**0.5))  # seeds that agree leave no doubt
    assert (factor(9.0).factor, factor(9.0).censored, factor(9.0).more_pairs_help) == (10, True, True)
    assert (factor(21.0).factor, factor(21.0).interval) == (NOT_REACHED, (NOT_REACHED, NOT_REACHED))
    spread = data_efficiency(
        {100: [8.0, 12.0], 1000: [18.0, 22.0]}, {100: [5.0, 6.0], 1000: [11.0, 23.0]}, larger_is_better=True,
        num_draws=500,
    )  # fmt: skip
    assert spread.interval[0] == NOT_REACHED
    assert spread.interval[1] > spread.factor > 1


def test_no_factor_is_read_off_a_curve_that_does_not_surely_rise() -> None:
    better = {100: [12.0, 12.1], 1000: [13.0, 13.1]}
    for last in ([10.0, 10.1], [11.1, 11.2]):  # falls; rises by less than the seeds spread
        flat = data_efficiency(better, {100: [10.9, 11.2], 1000: last}, larger_is_better=True)
        assert (flat.factor, flat.more_pairs_help, judge_efficiency(flat)) == (10, False, "not testable")
    errors = data_efficiency({100: [0.9, 0.9], 1000: [0.8, 0.8]}, {100: [1.2, 1.21], 1000: [1.0, 1.01]},
                             larger_is_better=False)  # fmt: skip
    assert errors.more_pairs_help
    reason = claim_of_efficiency("c", {"segment": flat, "depth": errors}).reason
    assert re.search(r"segment: no factor: .* not surely help .* with the worse captions and helped .* better", reason)


def test_that_more_pairs_made_it_worse_is_said() -> None:
    """Depth errors that rise by 0.1 ± 0.01 m, computed by hand: t of 2 degrees of freedom is 4.303."""
    worse = {100: [0.99, 1.01], 1000: [1.09, 1.11]}
    found = data_efficiency(worse, worse, larger_is_better=False, num_draws=10)
    assert found.rise == pytest.approx((-0.1 - 4.303 * 0.02**0.5 / 10, -0.1 + 4.303 * 0.02**0.5 / 10), rel=1e-3)
    assert "made it worse (gain [-0.161, -0.0392]) with the worse captions" in factor_sentence(found)


def test_equal_curves_are_seldom_told_apart() -> None:
    """The interval contains a factor of 1 in about 95 % of the trials with equally good captions. A bootstrap over
    three seeds missed it two to four times as often."""
    rng = np.random.default_rng(0)
    num_wrong = 0
    for _ in range(200):
        better, worse = ({n: list(rng.normal(math.log(n), 0.2, 3)) for n in (100, 500, 2500)} for _ in range(2))
        found = data_efficiency(better, worse, larger_is_better=True, num_draws=200)
        num_wrong += judge_efficiency(found) == "supported"
    assert num_wrong <= 10


def gain(low: float, high: float, reference: float = 100.0) -> Comparison:
    return Comparison(gain=(low + high) / 2, reference=reference, welch=(low, high), paired=(low, high), p_value=0.5,
                      effect_size=1.0, effect_interval=(0.0, 2.0))  # fmt: skip


def test_a_gain_is_judged_by_its_interval() -> None:
    assert judge_gain(gain(0.1, 9)) == "supported"
    assert judge_gain(gain(-3, 4.9)) == "not supported"  # the interval does not contain 5 %
    assert judge_gain(gain(-9, -1)) == "not supported"
    assert judge_gain(gain(-3, 5.1)) == "not testable"  # the interval contains 0 and 5 %


def test_a_claim_needs_both_tasks_and_a_pretraining_that_learnt() -> None:
    good, bad, wide = gain(1, 9), gain(-9, -1), gain(-9, 9)
    assert claim_of_gains("c", {"segment": good, "depth": good}, 20).verdict == "supported"
    assert claim_of_gains("c", {"segment": good, "depth": bad}, 20).verdict == "not supported"
    assert claim_of_gains("c", {"segment": good, "depth": wide}, 20).verdict == "not testable"
    unlearnt = claim_of_gains("c", {"segment": good, "depth": bad}, 1.1)
    assert unlearnt.verdict == "not testable"
    assert "1.1 times the recall of chance" in unlearnt.reason


def test_a_factor_is_judged_by_its_interval() -> None:
    def efficiency(low: float, high: float) -> Efficiency:
        return Efficiency(factor=2.0, censored=False, interval=(low, high), largest=25.0, rise=(0.1, 2),
                          better_rise=(0.1, 2))  # fmt: skip

    assert judge_efficiency(efficiency(1.2, 25)) == "supported"
    assert judge_efficiency(efficiency(NOT_REACHED, 1.4)) == "not supported"
    assert judge_efficiency(efficiency(NOT_REACHED, 25)) == "not testable"
    claim = claim_of_efficiency("c", {"segment": efficiency(NOT_REACHED, 25), "depth": efficiency(1.2, 3)})
    assert claim.verdict == "not testable"
    assert "2x [not reached to at least 25x] (not testable)" in claim.reason


def test_a_probe_agrees_contradicts_or_leaves_it_open() -> None:
    better, worse, open_ = gain(1, 9), gain(-9, -1), gain(-9, 9)

    def verdict(finetune: list[Comparison], probe: list[Comparison]) -> str:
        of_finetune, of_probe = ({str(i): {"depth": c} for i, c in enumerate(cs)} for cs in (finetune, probe))
        return claim_of_agreement("c", of_finetune, of_probe).verdict

    assert verdict([better, open_], [better, open_]) == "supported"
    assert verdict([better, better], [better, worse]) == "not supported"
    assert verdict([better, open_], [better, better]) == "not testable"
    assert verdict([open_, open_], [open_, open_]) == "not testable"
