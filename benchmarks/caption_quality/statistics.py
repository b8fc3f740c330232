"""The statistics of comparisons over seeds: means, intervals, effect sizes, the data-efficiency factor."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special, stats

_CONFIDENCE = 0.95
NOT_REACHED = 0.0  # as a data-efficiency factor: no measured number of pairs with better captions reaches the target


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The figures of one arm.

    Attributes:
        values: figure of each seed.
        mean: their mean.
        standard_error: standard error of the mean, sd (n - 1) / sqrt(n); NaN for a single figure.
    """

    values: tuple[float, ...]
    mean: float
    standard_error: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The gain of arm A over arm B.

    Attributes:
        gain: difference of the means, positive if A is better, in the unit of the figure.
        reference: mean of B.
        welch: 95 % interval of the gain by Welch's t (arms of unequal spread).
        paired: 95 % interval of the gain over the differences of equal seeds.
        p_value: p-value of Welch's test, two-sided.
        effect_size: Hedges' g, the gain in pooled standard deviations, corrected for few seeds.
        effect_interval: its 95 % interval from the noncentral t distribution.
    """

    gain: float
    reference: float
    welch: tuple[float, float]
    paired: tuple[float, float]
    p_value: float
    effect_size: float
    effect_interval: tuple[float, float]

    @property
    def relative_gain(self) -> float:
        """The gain as a share of the mean of B."""
        return _ratio(self.gain, self.reference)


@dataclass(frozen=True, kw_only=True)
class Efficiency:
    """The factor by which better captions need fewer pairs to reach the figure of all pairs with worse captions.

    Attributes:
        factor: the factor; NOT_REACHED (0) if the better captions never reach it.
        censored: the better captions reach it at the smallest measured number of pairs, so the factor is a lower bound.
        interval: 95 % interval, see `data_efficiency`; its ends are limited to 0 and `largest`.
        largest: the largest factor that the measured numbers of pairs can show.
        rise: 95 % interval (Welch) of the gain of all pairs over the fewest pairs, for the worse captions.
        better_rise: the same for the better captions.
    """

    factor: float
    censored: bool
    interval: tuple[float, float]
    largest: float
    rise: tuple[float, float]
    better_rise: tuple[float, float]

    @property
    def more_pairs_help(self) -> bool:
        """Whether more pairs with worse captions help: their interval is above 0.

        If they do not, few pairs with any captions may reach the same figure, and the factor has no meaning.
        """
        return self.rise[0] > 0


def summarize(values: Sequence[float]) -> Summary:
    """The mean and standard error of one or more figures."""
    n = len(values)
    error = float(np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    return Summary(values=tuple(values), mean=float(np.mean(values)), standard_error=error)


def compare(a: Sequence[float], b: Sequence[float], *, larger_is_better: bool) -> Comparison:
    """Compare arm A with arm B, which have figures of the same seeds in the same order.

    Raises:
        ValueError: there are fewer than two seeds, or the arms have different numbers of seeds.
    """
    if len(a) < 2 or len(a) != len(b):
        raise ValueError(f"seeds: found {len(a)} and {len(b)} figures, expected two or more, as many in both arms")
    sign = 1.0 if larger_is_better else -1.0
    x, y = sign * np.asarray(a, np.float64), sign * np.asarray(b, np.float64)
    n, gain = len(x), float(x.mean() - y.mean())
    variances = x.var(ddof=1), y.var(ddof=1)
    error = math.sqrt((variances[0] + variances[1]) / n)
    # Welch-Satterthwaite degrees of freedom; without spread, the interval is a point.
    freedom = (variances[0] + variances[1]) ** 2 * (n - 1) / (variances[0] ** 2 + variances[1] ** 2) if error else 1.0
    pooled = math.sqrt((variances[0] + variances[1]) / 2)
    shrink = 1 - 3 / (4 * (2 * n - 2) - 1)  # Hedges' correction
    effect = _ratio(gain, pooled)
    low, high = _effect_interval(effect, n)
    return Comparison(
        gain=gain,
        reference=abs(float(y.mean())),
        welch=_t_interval(gain, error, freedom),
        paired=_t_interval(gain, float((x - y).std(ddof=1)) / math.sqrt(n), n - 1),
        p_value=float(2 * stats.t.sf(_ratio(abs(gain), error), freedom)),
        effect_size=shrink * effect,
        effect_interval=(shrink * low, shrink * high),
    )


def _ratio(value: float, scale: float) -> float:
    return value / scale if scale else math.copysign(math.inf, value) if value else 0.0


def _t_interval(centre: float, error: float, freedom: float) -> tuple[float, float]:
    reach = float(stats.t.ppf((1 + _CONFIDENCE) / 2, freedom)) * error
    return centre - reach, centre + reach


def _effect_interval(effect: float, n: int) -> tuple[float, float]:
    """The noncentralities that put the observed t at the 2.5 and 97.5 % points, as effect sizes."""
    if not math.isfinite(effect):
        return effect, effect
    root, freedom = math.sqrt(n / 2), 2 * n - 2
    t, tail = effect * root, (1 - _CONFIDENCE) / 2
    # scipy's noncentral t is NaN for large t, so its definition is averaged over quantiles of the deviation instead.
    deviations = np.sqrt(stats.chi2.ppf((np.arange(4000) + 0.5) / 4000, freedom) / freedom)
    reach = 20 + 6 * abs(t)  # an upper bound of the distance between the noncentrality and t

    def end(share: float) -> float:
        def surplus(noncentrality: float) -> float:
            return float(special.ndtr(t * deviations - noncentrality).mean()) - share

        return float(optimize.brentq(surplus, t - reach, t + reach)) / root

    return end(1 - tail), end(tail)


def pairs_needed(curve: Mapping[int, float], target: float, *, larger_is_better: bool) -> float:
    """The number of pairs at which a curve first reaches a target, interpolated over the logarithm of the number.

    Args:
        curve: figure by number of pairs.
        target: the figure to reach.
        larger_is_better: whether larger figures are better.

    Returns:
        The smallest measured number if the curve starts at or above the target; infinity if it never reaches it.
    """
    sign = 1.0 if larger_is_better else -1.0
    numbers = sorted(curve)
    lacking = [sign * (target - curve[number]) for number in numbers]
    if lacking[0] <= 0:
        return float(numbers[0])
    for i in range(1, len(numbers)):
        if lacking[i] <= 0:
            share = lacking[i - 1] / (lacking[i - 1] - lacking[i])
            return numbers[i - 1] * (numbers[i] / numbers[i - 1]) ** share
    return math.inf


def data_efficiency(
    better: Mapping[int, Sequence[float]],
    worse: Mapping[int, Sequence[float]],
    *,
    larger_is_better: bool,
    num_draws: int = 2000,
) -> Efficiency:
    """The factor of the mean curves, with its 2.5 and 97.5 % points over random draws of all means.

    Means are drawn from Student's t distribution with the standard error of the few seeds. A bootstrap over three seeds
    would only have a few different means, too close together.

    Args:
        better, worse: figures of each seed (two or more) by number of pairs. The target is the figure of the worse
            captions with the most pairs.
    """
    smallest, num_pairs = min(better), max(worse)

    def rise(curve: Mapping[int, Sequence[float]]) -> tuple[float, float]:
        return compare(curve[max(curve)], curve[min(curve)], larger_is_better=larger_is_better).welch

    def factor(curve: Mapping[int, float], target: float) -> float:
        return num_pairs / pairs_needed(curve, target, larger_is_better=larger_is_better)

    rng = np.random.default_rng(0)

    def drawn(summary: Summary) -> float:
        return summary.mean + summary.standard_error * float(rng.standard_t(len(summary.values) - 1))

    curve, target = {n: summarize(values) for n, values in better.items()}, summarize(worse[num_pairs])
    factors = [factor({n: drawn(s) for n, s in curve.items()}, drawn(target)) for _ in range(num_draws)]
    tail = 100 * (1 - _CONFIDENCE) / 2
    low, high = (float(np.percentile(factors, q, method="inverted_cdf")) for q in (tail, 100 - tail))
    observed = factor({n: s.mean for n, s in curve.items()}, target.mean)
    largest = num_pairs / smallest
    return Efficiency(
        factor=observed,
        censored=observed >= largest,
        interval=(low, high),
        largest=largest,
        rise=rise(worse),
        better_rise=rise(better),
    )
