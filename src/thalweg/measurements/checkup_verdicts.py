"""The verdicts of a check-up: for each question an answer in words, and how far to trust it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thalweg.landscape.sample_means import mean_interval
from thalweg.measurements.checkup_layers import debiased_cka
from thalweg.measurements.checkup_lines import on_the_aligned_line, on_the_line
from thalweg.measurements.checkup_statistics import (
    calibration,
    common_measures,
    compare_flatness,
    confidence,
    quantiles,
    same_function,
)
from thalweg.measurements.verdict import Verdict, not_measured


def verdicts(parts: Mapping[str, Any], names: list[str]) -> list[Verdict]:
    """
    Judge all parts that there are.

    Parameters
    ----------
    parts : mapping
        ``there``; ``fit``, ``noise``, ``curvature``, ``inside`` and ``kernel`` by the place of
        the point;
        ``line`` and ``aligned`` by the places of its ends. What is missing has no verdict.
    names : list of str
        Of the points.
    """
    fits, layers, flats = parts.get("fit", {}), parts.get("inside", {}), _flats(parts)
    found = [_measured(parts["there"], names)] if "there" in parts else []
    found += [_fits(fit, names[i]) for i, fit in fits.items()]
    found += [v for i, fit in fits.items() if (v := _calibrated(fit, names[i])) is not None]
    found += [v for i, fit in fits.items() if (v := _margins(fit, names[i])) is not None]
    found += [_curved(flat, names[i]) for i, flat in flats.items()]
    found += [_degenerate(one, names[i]) for i, one in parts.get("kernel", {}).items()]
    if "refused" in parts.get("surface", ()):
        found.append(
            not_measured("How does the loss surface look?", ", ".join(names), parts["surface"])
        )
    for i, j in parts.get("pairs", []):
        both = names[i], names[j]
        if i in fits and j in fits:
            found += _predicts_better(fits[i], fits[j], *both)
            found.append(_same_function(fits[i], fits[j], *both))
        if i in layers and j in layers:
            found.append(same_layers(layers[i], layers[j], *both))
        if i in flats and j in flats and common_measures(flats[i], flats[j]):
            found.append(flatter(flats[i], flats[j], *both))
        if (i, j) in parts.get("line", {}):
            found += on_the_line(parts["line"][i, j], *both)
        if (i, j) in parts.get("aligned", {}):
            found += on_the_aligned_line(parts["aligned"][i, j], *both)
    return found


def _flats(parts: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """Join what noise and curvature say of each point; why there is nothing, where both are not."""
    flats: dict[int, dict[str, Any]] = {}
    for part in ("noise", "curvature"):
        for i, answer in parts.get(part, {}).items():
            flats[i] = flats.get(i, {}) | answer
    return flats


def _measured(there: dict[str, Any], names: list[str]) -> Verdict:
    frozen = f", {there['frozen']:,} frozen" if there["frozen"] else ""
    answer = (
        f"{there['weights']:,} trained weights in {there['layers']} layers{frozen},"
        f" {there['buffers']:,} numbers in buffers; measured in {there['dtype']}"
    )
    if there["batchnorm"] not in (None, "none"):
        answer += ", batch-norm statistics re-estimated on the training set"
    return Verdict(
        "Is this your model?",
        ", ".join(names),
        "not checked" if there["self_check"].startswith("not made") else "yes",
        answer,
        f"self-check: {there['self_check']}",
        there,
    )


def _fits(fit: dict[str, Any], name: str) -> Verdict:
    numbers, told = {}, []
    for split in ("train", "test"):
        for quantity, largest in (("loss", None), ("error", 1.0)):
            values = fit.get(f"{split}_{quantity}")
            if values is None:
                continue
            low, high = mean_interval(values, largest=largest)
            low = max(low, 0.0) if quantity == "error" else low
            if quantity == "error" and {*values.tolist()} <= {0.0, 1.0}:
                high = min(high, 1.0)  # a share of samples
            numbers[f"{split}_{quantity}"] = [float(values.mean()), low, high]
            told.append(f"{split} {quantity} {values.mean():.4g} ({low:.3g}, {high:.3g})")
    trust = "95% intervals over samples"
    trust += "; those of the training set do not count that weights were fitted to it"
    return Verdict("How good is it?", name, "", "; ".join(told), trust, numbers)


def _calibrated(fit: dict[str, Any], name: str) -> Verdict | None:
    if "outputs" not in fit or f"{fit['judged']}_error" not in fit:
        return None
    probabilities = confidence(fit["outputs"], fit["kind"])
    if probabilities is None:
        return None
    found = calibration(probabilities, fit[f"{fit['judged']}_error"])
    if found["excess_low"] > 0:
        verdict = "too sure"
    elif found["excess_high"] < 0:
        verdict = "not sure enough"
    else:
        beyond = found["ece"] > found["ece_of_chance"]
        verdict = "miscalibrated" if beyond else "no miscalibration seen"
    answer = (
        f"{verdict}: confidence minus accuracy {found['excess']:+.3f} ({found['excess_low']:+.3f},"
        f" {found['excess_high']:+.3f}); expected calibration error {found['ece']:.3f}"
        f" ({found['ece_low']:.3f}, {found['ece_high']:.3f})"
    )
    trust = (
        f"on {len(probabilities):,} {fit['judged']} samples; chance alone would show an expected"
        f" calibration error up to {found['ece_of_chance']:.3f}"
    )
    return Verdict("Can its confidence be trusted?", name, verdict, answer, trust, found)


def _margins(fit: dict[str, Any], name: str) -> Verdict | None:
    margins = fit.get("margins")
    if margins is None or len(margins) < _LEAST_MARGINS:
        return None
    found = quantiles(margins, (0.1, 0.5))
    (tenth, low, high), (middle, *ends) = found[0.1], found[0.5]
    answer = (
        f"half of the samples have a margin below {middle:.3g} ({ends[0]:.3g}, {ends[1]:.3g}), a"
        f" tenth below {tenth:.3g} ({low:.3g}, {high:.3g})"
    )
    trust = (
        f"95% intervals by order statistics of {len(margins):,} {fit['judged']} samples; in"
        " units of the outputs' root mean square, so that no rescaling changes them; negative where"
        " the class is wrong"
    )
    numbers = {"median": [middle, *ends], "tenth": [tenth, low, high]}
    return Verdict("How wide are its margins?", name, "", answer, trust, numbers)


# Below so many samples a tenth of them has no interval.
_LEAST_MARGINS = 40


def _curved(flat: dict[str, Any], name: str) -> Verdict:
    question = "How flat is it there?"
    told, trust = [], []
    if "average" in flat:
        told.append(
            f"noise of {flat['loss noise']:.3g} of the weights ({flat['loss noise_low']:.3g},"
            f" {flat['loss noise_high']:.3g}) raises the loss by 0.1; noise of 0.05 by"
            f" {flat['average']:.3g}"
        )
        trust.append(f"noise on {flat['samples']:,} training samples")
    if "worst" in flat:
        told.append(
            f"the worst step of {flat.get('worst_radius', 0.01):.2g} raises it by"
            f" {flat['worst']:.3g} or more{_at_most(flat)};"
            f" largest eigenvalue in relative units {flat['eigenvalue']:.4g}"
            f" ± {flat['eigenvalue_error']:.2g}"
        )
        status = f"curvature on {flat['curved_samples']:,} training samples, eigenvalue"
        trust.append(f"{status} {flat['eigenvalue_status']}")
        trust += [flat["unproved"]] if "unproved" in flat else []
    if "trace" in flat:
        told.append(f"trace of the Hessian {flat['trace']:.4g} ± {flat['trace_error']:.2g}")
        trust.append(f"trace {flat['trace_status']}, which changes where layers are rescaled")
    if not told:
        return not_measured(question, name, flat)
    if "refused" in flat:
        trust.append(f"the rest was not measured: {flat['refused']}")
    numbers = {k: v for k, v in flat.items() if not k.endswith("_each")}
    return Verdict(question, name, "", "; ".join(told), "; ".join(trust), numbers)


def _at_most(flat: dict[str, Any]) -> str:
    """Say what no step exceeds, where that is proved."""
    return f" and by {flat['worst_most']:.3g} at most, as is proved" if "worst_most" in flat else ""


def _degenerate(one: dict[str, Any], name: str) -> Verdict:
    question = "How degenerate is it?"
    if "refused" in one:
        return not_measured(question, name, one)
    causes = sorted(one["split"].items(), key=lambda item: -item[1])
    told = ", ".join(f"{count:,} {kind}" for kind, count in causes[:3] if count)
    answer = f"{one['nullity']:,} of {one['weights']:,} directions change no output"
    answer += f": {told}" if told else ""
    trust = f"to first order, on {one['samples']:,} training samples; more samples leave fewer"
    if not one["clear"]:
        trust += f"; no clear gap: {one['weights'] - one['rank_high']:,} to"
        trust += f" {one['weights'] - one['rank_low']:,}"
    return Verdict(question, name, "", answer, trust, {k: one[k] for k in ("nullity", "split")})


def _predicts_better(
    first: dict[str, Any], last: dict[str, Any], one: str, other: str
) -> list[Verdict]:
    key = next((k for k in ("test_error", "test_loss") if k in first), None)
    if key is None:
        return []
    differences = last[key] - first[key]
    low, high = mean_interval(differences, largest=1.0 if key == "test_error" else None)
    value, word = float(differences.mean()), key.replace("_", " ")
    better = other if high < 0 else one if low > 0 else ""
    verdict = f"{better} is better" if better else "no difference seen"
    answer = (
        f"{verdict}: {word} of {other} minus that of {one} {value:+.4g} ({low:+.3g}, {high:+.3g})"
    )
    trust = f"95% interval over {len(differences):,} test samples, paired"
    numbers = {"difference": value, "low": low, "high": high}
    return [Verdict("Which predicts better?", f"{one}, {other}", verdict, answer, trust, numbers)]


def _same_function(first: dict[str, Any], last: dict[str, Any], one: str, other: str) -> Verdict:
    found = same_function(first, last)
    told = []
    if "disagree" in found:
        ends = f"({found['disagree_low']:.3g}, {found['disagree_high']:.3g})"
        told.append(f"other classes for {found['disagree']:.3g} {ends} of the samples")
    if "cka" in found:
        told.append(f"linear CKA of outputs {found['cka']:.4f}")
    told.append(f"weights {found['relative']:.3g} lengths apart, cosine {found['cosine']:.3f}")
    verdict = ""
    if "disagree" in found:
        verdict = "same predictions" if found["disagree"] == 0 else "other predictions"
    trust = (
        f"on the {first['judged']} samples; distance of weights says little: hidden units may be"
    )
    trust += " permuted and layers rescaled"
    question = "Do they compute the same?"
    return Verdict(question, f"{one}, {other}", verdict, "; ".join(told), trust, found)


def same_layers(first: dict[str, Any], last: dict[str, Any], one: str, other: str) -> Verdict:
    """Compare inner layers of two points by linear CKA, without bias."""
    question, about = "Do their inner layers compute the same?", f"{one}, {other}"
    if refused := next((layers for layers in (first, last) if "refused" in layers), None):
        return not_measured(question, about, refused)
    names = [str(name) for name in first["layers"]]
    found = {
        name: debiased_cka(a, b)
        for name, a, b in zip(names, first["products"], last["products"], strict=True)
    }
    known = {name: value for name, value in found.items() if value == value}
    told = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
    least = min(known, key=lambda name: known[name]) if known else ""
    answer = f"linear CKA by layer: {told}"
    answer += f"; least alike: {least}" if least and len(known) > 1 else ""
    trust = (
        f"on {len(first['products'][0]):,} {first['judged']} samples, estimated without the bias of"
        " wide layers; 1 where alike up to rotation and scale, 0 where unrelated; hidden units may"
        " be permuted"
    )
    return Verdict(question, about, "", answer, trust, found)


def flatter(first: dict[str, Any], last: dict[str, Any], one: str, other: str) -> Verdict:
    """Say which of two points is flatter: where more than half of the measures agree."""
    rows = compare_flatness(first, last)
    votes = {end: sum(row["flatter"] == end for row in rows) for end in ("first", "last")}
    winner = max(votes, key=lambda end: votes[end])
    loser = "last" if winner == "first" else "first"
    told = "; ".join(
        f"{row['measure']} {row['first']:.3g} and {row['last']:.3g} (p {row['p']:.2g})"
        for row in rows
    )
    if votes[winner] > len(rows) / 2 and not votes[loser]:
        a, b = (one, other) if winner == "first" else (other, one)
        verdict = f"{a} is flatter"
        answer = f"{a} is flatter than {b} by {votes[winner]} of {len(rows)} invariant measures"
    else:
        verdict = "no difference seen" if not any(votes.values()) else "measures differ"
        answer = (
            f"no verdict: {votes['first']} of {len(rows)} invariant measures for {one},"
            f" {votes['last']} for {other}"
        )
    trust = (
        "paired tests over shared noise and samples, Holm-corrected, at level 0.01; differences"
        " under 1% (10% of the worst direction, a lower bound) count as none. Of training samples:"
        " flatness does not tell which predicts better"
    )
    numbers = {"measures": rows, **votes}
    about = f"{one}, {other}"
    return Verdict("Which is flatter?", about, verdict, f"{answer}: {told}", trust, numbers)
