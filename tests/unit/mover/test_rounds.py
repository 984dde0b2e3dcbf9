"""Whether one more round of memory pays, told from the ones before."""

from __future__ import annotations

import pytest

from migrrdma_runtime.mover.rounds import Round, Rounds

MIB = 1 << 20


def rounds(*left: int, most: int = 8, downtime: float = 0.3, stays: int = 0, dumped: float = 0.01) -> Rounds:
    """Rounds after each of which so many MiB were marked; all but the first have sent what was; at 100 MiB/s."""
    found, size = Rounds(most, downtime), 1000
    for number, one in enumerate(left, 1):
        found.done.append(Round(number, size * MIB, dumped, size / 100 - dumped, stays * MIB, one * MIB))
        size = one
    return found


def test_the_first_goes_whatever_there_is_unless_none_may() -> None:
    assert Rounds(1, 0.3).go_on()
    assert not Rounds(0, 0.3).go_on()


@pytest.mark.parametrize(
    ("left", "goes_on"),
    [
        ((100,), True),  # a second would be left
        ((20,), False),  # 0.2 s, and 0.02 for a dump and a restore
        ((27,), False),
        ((29,), True),
        ((31,), False),  # 0.31 s: nearly as much as would be left after another
        ((950,), False),  # it is written to as fast as it is sent
        ((500, 250), True),
        ((500, 460), False),  # nothing is gained any more
    ],
)
def test_they_end_when_the_rest_fits_or_nothing_is_gained(left: tuple[int, ...], *, goes_on: bool) -> None:
    stays = 30 if left == (31,) else 0
    assert rounds(*left, stays=stays).go_on() is goes_on


def test_there_are_no_more_than_were_asked_for() -> None:
    assert rounds(500, 250, most=3).go_on()
    assert not rounds(500, 250, most=2).go_on()


def test_what_devices_hold_is_not_sent_again_and_again() -> None:
    assert rounds(400, stays=300).go_on()
    assert not rounds(400, stays=390).go_on()


def test_what_is_expected_is_the_rest_at_the_best_rate_and_a_dump_and_a_restore() -> None:
    assert rounds(100, dumped=0.1).expected() == pytest.approx(0.2 + 1.0)
    assert rounds(100, dumped=0.1).expected(200 * MIB) == pytest.approx(0.2 + 2.0)


def test_what_moves_before_have_shown_is_believed() -> None:
    known = Rounds(8, 0.3, least=0.25)
    known.done += rounds(10).done
    assert known.expected() == pytest.approx(0.25 + 0.1)
    assert known.go_on()


def test_what_was_marked_since_counts_too() -> None:
    ready = rounds(20)
    assert not ready.go_on()
    assert ready.go_on(200 * MIB)


def test_rates_are_bytes_a_second() -> None:
    one = Round(1, 1000, 1.0, 3.0, 100, 400)
    assert one.rate == pytest.approx(250)
    assert one.dirty_rate == pytest.approx(100)
