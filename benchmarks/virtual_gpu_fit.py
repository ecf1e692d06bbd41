"""Least squares for the constants of the hardware model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fairshare.virtual.physics import Constants

Floats = NDArray[np.float64]
_ROUNDS = 8
_STEP = 0.05  # relative change of a constant by which its effect is found
_LARGEST_CHANGE = 0.5  # in one round, of a constant's logarithm
_EFFICIENCY = (0.05, 1.0)


def fit_constants(
    residuals: Callable[[Constants], Floats], start: Constants, names: Sequence[str]
) -> Constants:
    """The constants in which those that are named make the squares of ``residuals`` least.

    Levenberg's and Marquardt's method on the constants' logarithms. Where the data say nothing of a
    constant it stays where it started.
    """
    constants, damping = start, 1e-3
    now = residuals(constants)
    for _ in range(_ROUNDS):
        slopes = np.stack(
            [(residuals(_changed(constants, name, _STEP)) - now) / _STEP for name in names], axis=1
        )
        tried, after = constants, now
        while damping < 1e3:
            normal = slopes.T @ slopes + damping * np.eye(len(names))
            change = np.linalg.solve(normal, -slopes.T @ now)
            change = change.clip(-_LARGEST_CHANGE, _LARGEST_CHANGE)
            tried = constants
            for name, log in zip(names, change, strict=True):
                tried = _changed(tried, name, float(np.expm1(log)))
            after = residuals(tried)
            if after @ after < now @ now:
                break
            damping *= 5
        else:
            return constants
        constants, now, damping = tried, after, damping / 5
        if np.abs(change).max() < 1e-4:
            break
    return constants


def _changed(constants: Constants, name: str, by: float) -> Constants:
    value = float(getattr(constants, name)) * (1 + by)
    if name.endswith("efficiency"):
        value = min(max(value, _EFFICIENCY[0]), _EFFICIENCY[1])
    return replace(constants, **{name: value})
