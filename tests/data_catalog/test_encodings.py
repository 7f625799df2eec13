import random
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from data_catalog.encodings import (
    SCHEMA,
    EncodedArrays,
    EncodingsError,
    read_arrays,
    read_rows,
    write_encoded_shard,
)


def make_shard(folder: Path, n: int = 3, **more: Any) -> EncodedArrays:
    """A shard; `more` are arrays, and the column more_captions."""
    rng = np.random.default_rng(0)
    arrays = EncodedArrays(
        latents=rng.integers(0, 256, (n, 4, 8, 8), dtype=np.uint8),
        text=rng.standard_normal((n, 64)).astype(np.float16),
        key=np.array([f"{i:09d}" for i in range(n)], dtype=np.bytes_),
    )
    captions = more.pop("more_captions", None)
    arrays = replace(arrays, **more)
    rows: dict[str, list[Any]] = {name: ["x"] * n for name in ("url", "caption", "split", "sha256")}
    rows |= {name: [64] * n for name in ("width", "height", "original_width", "original_height")}
    rows |= {
        "key": [f"{i:09d}" for i in range(n)],
        "clip_score": [20.0] * n,
        "clipped_fraction": [0.0] * n,
    }
    rows |= {"quantization_rmse": [0.02] * n} | ({"more_captions": captions} if captions else {})
    write_encoded_shard(folder, "00000", rows, arrays)
    return arrays


def test_arrays_come_back_as_they_went_and_are_memory_mapped(tmp_path: Path) -> None:
    written = make_shard(tmp_path)
    read = read_arrays(tmp_path / "00000.npz")
    for name in ("latents", "text", "key"):
        array = getattr(read, name)
        assert isinstance(array, np.memmap)
        np.testing.assert_array_equal(array, getattr(written, name))


def test_several_captions_and_their_tokens_come_back_as_they_went(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    written = make_shard(
        tmp_path,
        text=rng.standard_normal((5, 64)).astype(np.float16),
        text_start=np.array([0, 2, 3, 5]),
        text_column=np.array([0, 2, 0, 0, 1], np.uint8),
        tokens=rng.standard_normal((12, 32)).astype(np.float16),
        token_start=np.array([0, 2, 4, 7, 9, 12]),
        more_captions=[[None, "a"], [None, None], ["b", None]],
    )
    read = read_arrays(tmp_path / "00000.npz")
    for name, array in written.by_name.items():
        assert isinstance(getattr(read, name), np.memmap)
        np.testing.assert_array_equal(getattr(read, name), array)
    frame = pd.read_parquet(tmp_path / "00000.parquet")
    assert frame["more_captions"].str[1].tolist() == ["a", None, None]
    assert read_rows(tmp_path, "00000", ["more_captions"])["more_captions"].to_pylist()[2] == [
        "b",
        None,
    ]


def test_a_shard_with_one_caption_a_pair_has_nothing_of_several(tmp_path: Path) -> None:
    make_shard(tmp_path)
    with np.load(tmp_path / "00000.npz") as arrays:
        assert list(arrays) == ["latents", "text", "key"]
    assert read_arrays(tmp_path / "00000.npz").text_start is None
    assert parquet.read_schema(tmp_path / "00000.parquet").equals(SCHEMA)


def test_others_read_it_with_pandas_and_numpy_alone(tmp_path: Path) -> None:
    written = make_shard(tmp_path)
    with np.load(tmp_path / "00000.npz") as arrays:
        np.testing.assert_array_equal(arrays["latents"], written.latents)
        keys = [key.decode() for key in arrays["key"]]
    frame = pd.read_parquet(tmp_path / "00000.parquet")
    assert list(frame.columns) == SCHEMA.names
    assert frame["key"].tolist() == keys


def test_duckdb_queries_the_rows_where_they_lie(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    make_shard(tmp_path)
    query = f"select key, width from '{tmp_path}/*.parquet' where clip_score > 10 order by key desc"
    assert duckdb.sql(query).fetchall() == [("000000002", 64), ("000000001", 64), ("000000000", 64)]


def test_datasets_loads_the_rows(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    written = make_shard(tmp_path)
    rows = datasets.load_dataset(
        "parquet",
        data_files=str(tmp_path / "*.parquet"),
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )
    assert rows["key"][:] == [key.decode() for key in written.key]
    assert rows.column_names == SCHEMA.names


def test_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        make_shard(tmp_path / name)
    for file in ("00000.npz", "00000.parquet"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_damaged_shard_is_refused_by_name(tmp_path: Path) -> None:
    make_shard(tmp_path)
    path = tmp_path / "00000.npz"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(EncodingsError, match=r"00000\.npz is not an encoded shard"):
        read_arrays(path)


def npy(descr: str, shape: str, data: bytes = b"") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


HONEST = {
    "latents": npy("'|u1'", "(2, 1, 1, 1)", bytes(2)),
    "text": npy("'<f2'", "(2, 3)", bytes(12)),
    "key": npy("'|S4'", "(2,)", b"00010002"),
}
STARTS = {"text_column": npy("'|u1'", "(2,)", bytes(2))}


def starts(*numbers: int) -> bytes:
    return npy("'<i8'", f"({len(numbers)},)", np.array(numbers, "<i8").tobytes())


def write_npz(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


@pytest.mark.parametrize(
    "changed",
    [
        {"latents": npy("'|O'", "(2,)", b"A" * 16)},
        {"latents": npy("'|O'", "(2, 1, 1, 1)", b"A" * 16)},
        {"latents": npy("[('a', '|O')]", "(2, 1, 1, 1)", b"A" * 16)},
        {"latents": npy("'|V1'", "(2, 1, 1, 1)", bytes(2))},
        {"latents": npy("'|u1'", "(2, 1, 1, 10**9)", bytes(2))},
        {"latents": npy("'|u1'", "(2, 1, 1, 1000000000)", bytes(2))},
        {"latents": npy("'|u1'", "(-2, -1, 1, 1)", bytes(2))},
        {"latents": npy("'|u1'", "(2,)", bytes(2))},
        {"latents": npy("'|u1'", "(3, 1, 1, 1)", bytes(3))},
        {"latents": npy("'|u1'", "(" * 5000)},
        {"latents": b""},
        {"text": npy("'>f2'", "(2, 3)", bytes(12))},
        {"text": npy("'<f8'", "(2, 3)", bytes(48))},
        {"text": npy("'<f2'", "(1, 3)", bytes(6))},
        {"key": npy("'<U4'", "(2,)", bytes(32))},
        {"text_start": starts(0, 1, 2)},
        STARTS | {"text_start": starts(0, 5, 2)},
        STARTS | {"text_start": starts(-1, 1, 2)},
        STARTS | {"text_start": starts(0, 1, 10**12)},
        STARTS | {"text_start": starts(0, 1)},
        {"tokens": npy("'<f2'", "(2, 1)", bytes(4)), "token_start": starts(0, 9, 2)},
    ],
)
def test_arrays_that_lie_or_are_no_numbers_are_refused(
    tmp_path: Path, changed: dict[str, bytes]
) -> None:
    read_arrays(write_npz(tmp_path / "honest.npz", HONEST))
    with pytest.raises(EncodingsError, match=r"evil\.npz is not an encoded shard"):
        read_arrays(write_npz(tmp_path / "evil.npz", HONEST | changed))


@pytest.mark.filterwarnings("ignore")
def test_no_mutation_of_a_shard_brings_out_another_error(tmp_path: Path) -> None:
    path, rng = write_npz(tmp_path / "00000.npz", HONEST), random.Random(0)
    whole = path.read_bytes()
    for _ in range(500):
        mutant = bytearray(whole)
        for _ in range(rng.choice((1, 3, 9))):
            mutant[rng.randrange(len(mutant))] = rng.choice(
                (0, 1, 40, 79, 127, 255, rng.randrange(256))
            )
        path.write_bytes(mutant)
        try:
            for array in read_arrays(path).by_name.values():
                array.copy()
        except EncodingsError:
            pass


def test_rows_of_another_form_are_refused_by_column(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"key": [1, 2]}), tmp_path / "00000.parquet")
    with pytest.raises(EncodingsError, match="column key holds int64, not string"):
        read_rows(tmp_path, "00000", ["key"])
    with pytest.raises(EncodingsError, match="caption"):
        read_rows(tmp_path, "00000", ["caption"])
    (tmp_path / "00000.parquet").write_bytes(b"PAR1" * 9)
    with pytest.raises(EncodingsError, match="does not hold the rows of an encoded shard"):
        read_rows(tmp_path, "00000")
