import numpy as np
import pytest

from data_catalog.deduplication import find_duplicates


def hashes(*values: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.array(values, dtype=np.uint64)


def test_the_first_of_equal_files_is_kept() -> None:
    duplicates = find_duplicates(hashes(5, 7, 5, 5, 9), None, 0)
    assert duplicates.same_file.tolist() == [-1, -1, 0, 0, -1]
    assert duplicates.looks_the_same.tolist() == [-1] * 5


def test_looks_within_the_bits_are_duplicates_and_others_are_not() -> None:
    far, base = 0xFFFF_0000_FFFF_0000, 0x0123_4567_89AB_CDEF
    looks = hashes(base, far, base ^ 0b1, base ^ (0b111 << 20), base ^ (0b1111 << 40))
    duplicates = find_duplicates(hashes(0, 1, 2, 3, 4), looks, 3)
    assert duplicates.looks_the_same.tolist() == [-1, -1, 0, 0, -1]
    assert find_duplicates(hashes(0, 1, 2, 3, 4), looks, 0).looks_the_same.tolist() == [-1] * 5


def test_what_repeats_only_a_dropped_picture_is_kept() -> None:
    looks = hashes(
        0, 0b111, 0b111111
    )  # each within 3 bits of the one before, the last 6 from the first
    assert find_duplicates(hashes(0, 1, 2), looks, 3).looks_the_same.tolist() == [-1, 0, -1]


def test_it_finds_what_comparing_all_with_all_finds() -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2**64, 300, dtype=np.uint64)
    flips = np.uint64(1) << rng.integers(0, 64, (3, 300), dtype=np.uint64)
    near = base ^ flips[0] ^ flips[1] ^ flips[2]
    looks = rng.permutation(np.concatenate([base, near, base[:50]]))
    duplicates = find_duplicates(np.arange(len(looks), dtype=np.uint64), looks, 3).looks_the_same
    unique: list[int] = []
    for number, look in enumerate(looks):
        earlier = [k for k in unique if int(look ^ looks[k]).bit_count() <= 3]
        assert (duplicates[number] >= 0) == bool(earlier), number
        if not earlier:
            unique.append(number)
        else:
            assert duplicates[number] in earlier


def test_a_distance_that_is_not_searched_is_refused() -> None:
    with pytest.raises(ValueError, match="up to 3 bits, got 4"):
        find_duplicates(hashes(1), hashes(1), 4)
