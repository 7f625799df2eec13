"""The habits of the house that no linter keeps."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from pipeline.stages.dag import STAGES

REPOSITORY = Path(__file__).parents[1]
ROOMS = ("data_catalog", "tld_model", "pipeline", "flows")


def sources() -> dict[str, str]:
    files = (path for room in ROOMS for path in (REPOSITORY / room).rglob("*.py"))
    return {str(path.relative_to(REPOSITORY)): path.read_text() for path in files}


def users_of(library: str) -> set[str]:
    pattern = re.compile(rf"^\s*(from|import) {library}\b", re.MULTILINE)
    return {name for name, text in sources().items() if pattern.search(text)}


def test_each_library_is_named_where_it_belongs() -> None:
    assert users_of("img2dataset") == {"pipeline/download/shard_downloader.py"}
    carried = {
        "pipeline/export/diffusers_pipeline.py",
        "pipeline/export/diffusers_transformer.py",
    }  # by exports, which diffusers runs
    example = "pipeline/export/diffusers.py"  # in the text of the card
    assert users_of("diffusers") == {"tld_model/encoders/vae.py", example, *carried}
    assert users_of("transformers") == {
        "tld_model/encoders/clip.py",
        "pipeline/export/diffusers_pipeline.py",
    }


def test_no_file_can_run_code_by_being_loaded() -> None:
    for name, text in sources().items():
        for call in re.findall(r"torch\.load\([^)]*\)", text):
            assert "weights_only=True" in call, name
        assert not re.search(
            r"allow_pickle=True|pickle\.loads?\(|yaml\.(unsafe_)?load\(|joblib|cloudpickle", text
        ), name


def test_every_module_opens_with_what_it_is() -> None:
    for name, text in sources().items():
        if text.strip():
            assert text.removeprefix("r").startswith('"""'), name


def test_text_files_are_utf_8_whatever_the_locale_says() -> None:
    for name, text in sources().items():
        calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
        for call in filter(_opens_text, calls):
            assert "encoding" in {word.arg for word in call.keywords}, f"{name}:{call.lineno}"


def _opens_text(call: ast.Call) -> bool:
    """Whether this is `read_text`, `write_text`, or `open` in a text mode."""
    match call:
        case ast.Call(func=ast.Attribute(attr="read_text" | "write_text")):
            return True
        case ast.Call(func=ast.Attribute(attr="open"), args=[ast.Constant(value=str(mode)), *_]):
            return set(mode) <= set("rwax+t")
        case ast.Call(func=ast.Name(id="open")):
            return True
    return False


def test_there_is_no_drawer_for_odds_and_ends() -> None:
    assert not [
        name for name in sources() if Path(name).stem in ("utils", "helpers", "common", "misc")
    ]


def test_the_readme_names_every_command_and_every_file_of_the_walk() -> None:
    readme = (REPOSITORY / "README.md").read_text()
    drawing = "sample sweep compare promote export import-checkpoint export-checkpoint serve"
    for command in (
        *STAGES,
        *drawing.split(),
        *["run", "status", "clean", "deploy", "config", "catalog", "bench", "ui"],
    ):
        assert f"tld {command}" in readme
    for path in re.findall(r"`((?:data_catalog|tld_model|pipeline|flows)/\w+\.py)`", readme):
        assert (REPOSITORY / path).exists(), path


def test_pictures_are_opened_by_the_one_function_that_lists_formats() -> None:
    door = "data_catalog/image_formats.py"
    opened = re.compile(r"\bImage\.open\(|\bimread\(|\bImage import open\b")
    assert {name for name, text in sources().items() if opened.search(text)} == {door}
    decoding = {name for name, text in sources().items() if "cv2.imdecode(" in text}
    assert decoding == {"data_catalog/images.py"}, "which looks at the header first"
