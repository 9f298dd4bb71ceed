"""Letters are named in order, stand where their style says, and can be read on any ground."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from medssl_jax.figures import letters
from medssl_jax.figures.letters import BLACK, FONTS, PLACES, WHITE, Letters

PANEL = (60, 60, 160, 150)


def style(**changes):
    return Letters("upper", "{}", "inside", "bold", 16, False)._replace(**changes)


def sheet(color=WHITE):
    return Image.new("RGB", (220, 220), color)


def inked(image, ground):
    """The rectangle (x0, y0, x1, y1) of what is not ground."""
    rows, columns = np.nonzero((np.asarray(image) != np.array(ground)).any(-1))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ["A", "B", "C", "D"]),
        ({"case": "lower", "form": "({})"}, ["(a)", "(b)", "(c)", "(d)"]),
        ({"case": "roman", "form": "{})"}, ["i)", "ii)", "iii)", "iv)"]),
        ({"case": "digit"}, ["1", "2", "3", "4"]),
        ({"form": "{}1"}, ["A1", "A2", "B1", "B2"]),
    ],
)
def test_names(changes, expected):
    assert letters.names(style(**changes), 4) == expected


def test_names_beyond_the_alphabet_differ():
    for case in letters.CASES:
        assert len(set(letters.names(style(case=case), 36))) == 36
    assert letters.names(style(), 28)[-2:] == ["AA", "AB"]
    assert letters.names(style(case="roman"), 19)[-1] == "xix"


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("font", FONTS)
def test_a_letter_stands_in_its_place_and_its_pad(place, font):
    """The returned rectangle is exactly the ink; outside letters keep to the pad and clear of the panel."""
    image, lettering = sheet(), style(place=place, font=font)
    found = letters.letter(image, lettering, "A", PANEL)
    assert found == inked(image, WHITE)
    x0, y0, x1, y1 = PANEL
    pad = letters.pad(lettering, 3)
    left, top, right, bottom = (x0 - pad.left, y0 - pad.top, x1 + pad.right, y1 + pad.bottom)
    assert left <= found[0] < found[2] <= right
    assert top <= found[1] < found[3] <= bottom
    clear = {"inside": True, "left": found[2] <= x0, "below": found[1] >= y1, "above": found[3] <= y0}
    assert clear[place]
    assert (pad == letters.Pad()) == (place == "inside")


@pytest.mark.parametrize(("ground", "ink"), [(0, WHITE), (127, WHITE), (128, BLACK), (255, BLACK)])
def test_ink_contrasts_with_what_is_there(ground, ink):
    image = sheet((ground, ground, ground))
    found = letters.write(image, "B", (100, 100), (0.5, 0.5), 30, "plain")
    pixels = np.asarray(image.crop(found)).reshape(-1, 3)
    assert (pixels == ink).all(-1).any()


def test_a_patch_is_white_below_its_letter():
    image = sheet(BLACK)
    letters.letter(image, style(patch=True), "C", PANEL)
    pixels = np.asarray(image)
    assert (pixels[PANEL[1], PANEL[0]] == WHITE).all()
    inside = pixels[PANEL[1] : PANEL[1] + 16, PANEL[0] : PANEL[0] + 16]
    assert (inside == BLACK).all(-1).any()


def test_turned_text_reads_upwards():
    upright, turned = letters.sprite("Time (h)", "plain", 20), letters.sprite("Time (h)", "plain", 20, True)
    np.testing.assert_array_equal(np.rot90(np.asarray(upright)), np.asarray(turned))


def test_styles_have_the_shares_of_the_reference(rng):
    drawn = [letters.draw_letters(rng, 500) for _ in range(4000)]
    for name, weights, values in (
        ("case", letters.CASE_WEIGHTS, letters.CASES),
        ("place", letters.PLACE_WEIGHTS, letters.PLACES),
    ):
        shares = [np.mean([getattr(one, name) == value for one in drawn]) for value in values]
        np.testing.assert_allclose(shares, weights, atol=0.03)
    assert (min(one.size for one in drawn), max(one.size for one in drawn)) == (11, 22)
