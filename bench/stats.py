"""Medians, and verdicts that respect noise."""

import math
import statistics

# A difference counts only where every run of one side beats every run of the other, and luck alone would do that,
# were both sides the same, less often than this: 5 runs against 5 (1 in 252), 5 against 3 (1 in 56), 4 against 4.
MAX_LUCK = 1 / 50

BETTER, WORSE, NOISE, TOO_FEW = "better", "worse", "within noise", "too few runs"

median = statistics.median


def quartiles(values):
    return statistics.quantiles(values, n=4, method="inclusive")


def ideal_speedup(requests, percent):
    """How many times faster requests of one length get that share `percent` of it, if what is shared is computed once
    and nothing else takes time."""
    shared = percent / 100
    return requests / (shared + requests * (1 - shared))


def luck(num_ours, num_theirs):
    """How often all of our runs lie above all of theirs although both measure the same thing."""
    return 1 / math.comb(num_ours + num_theirs, num_ours)


def compare(ours, theirs, higher_is_better):
    """Compares samples of two programs that ran in turns; neither list is empty.

    Returns the ratio of the medians (above 1: we are better), the lowest and the highest ratio of two runs of one
    turn, and a verdict.
    """
    if not higher_is_better:
        ours, theirs = [1 / x for x in ours], [1 / x for x in theirs]
    ratios = [a / b for a, b in zip(ours, theirs)]
    if luck(len(ours), len(theirs)) > MAX_LUCK:
        verdict = TOO_FEW
    elif min(ours) > max(theirs):
        verdict = BETTER
    elif max(ours) < min(theirs):
        verdict = WORSE
    else:
        verdict = NOISE
    return {
        "ratio": median(ours) / median(theirs),
        "low": min(ratios),
        "high": max(ratios),
        "verdict": verdict,
    }


def decode_rate(streams):
    """Tokens per second of streams that decode together, from [(number of tokens, [time of each arrival])].

    Counts what arrives between the last stream's first token and the first stream's last: outside that window fewer
    are decoding. None if less than half of all tokens fall into it. A token without text of its own arrives with a
    later one, so arrivals stand for equal shares of their stream's tokens.
    """
    begin = max(times[0] for _, times in streams)
    end = min(times[-1] for _, times in streams)
    inside = sum(count * sum(begin < t <= end for t in times) / len(times) for count, times in streams)
    if 2 * inside < sum(count for count, _ in streams) or end <= begin:
        return None
    return inside / (end - begin)
