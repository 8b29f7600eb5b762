"""What a build requires against what a worker offers (`specs/peer.md`)."""

from __future__ import annotations

import pytest

from latent.core.matching import matches, why_not
from latent.model import Requirements


def offers(**labels: str) -> dict[str, frozenset[str]]:
    """Names with "not_" in front are labels that a build must require ("!")."""
    return {name.replace("not_", "!"): frozenset(values.split()) for name, values in labels.items()}


@pytest.mark.parametrize(
    ("labels", "offer"),
    [
        ({}, offers()),
        ({}, offers(os="linux")),
        ({"os": "linux"}, offers(os="linux")),
        ({"os": "linux"}, offers(os="bsd linux")),
        ({"os": "linux"}, offers(os="*")),
        ({"os": ""}, offers()),
        ({"os": "linux", "cpu": "8"}, offers(os="linux", cpu="8", disk="1")),
        ({"gpu": "a100"}, offers(not_gpu="a100")),
        ({"gpu": "a100"}, offers(not_gpu="*")),
    ],
)
def test_a_build_fits_where_each_of_its_labels_is_offered(labels: dict[str, str], offer: dict[str, frozenset[str]]) -> None:
    """Exactly, or by `*`; labels without a value are ignored, and a build without labels runs anywhere."""
    assert matches(Requirements(labels=labels), "w", offer)


@pytest.mark.parametrize(
    ("labels", "offer", "why"),
    [
        ({"os": "linux"}, offers(), "os=linux is not offered"),
        ({"os": "linux"}, offers(os="bsd"), "offered: bsd"),
        ({"os": "*"}, offers(os="bsd"), "os=* is not offered"),
        ({"os": "linux", "cpu": "8"}, offers(os="linux"), "cpu=8"),
        ({}, offers(not_gpu="a100"), "only takes builds that require gpu=a100"),
        ({}, offers(not_gpu="*"), "only takes builds that require gpu"),
        ({"gpu": ""}, offers(not_gpu="*"), "only takes builds that require gpu"),
        ({"gpu": "t4"}, offers(not_gpu="a100"), "gpu=t4 is not offered"),
    ],
)
def test_a_build_that_does_not_fit_is_told_what_is_missing(
    labels: dict[str, str], offer: dict[str, frozenset[str]], why: str
) -> None:
    """The first requirement that is not met, in words; `*` means any only on the worker's side."""
    assert why in why_not(Requirements(labels=labels), "w", offer)


def test_a_build_that_names_workers_fits_no_other() -> None:
    """Whatever the others offer."""
    needs = Requirements(workers=frozenset({"a", "b"}))
    assert matches(needs, "a", {})
    assert why_not(needs, "c", {}) == "only a, b may run it"
