"""The habits of the house that no linter keeps: where files lie, how long they are, what names say.

Numbers that are above the goal today stand in a list or a constant here. They may only shrink.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
ROOMS = ("data_catalog", "tld_model", "pipeline", "flows")

LONGEST_MODULE = 250  # lines
LONGEST_FUNCTION = 60  # lines
MOST_PARAMETERS = 6
LONG_MODULES: set[str] = set()
LONG_FUNCTIONS: set[str] = set()
# What is called from Python has the keyword arguments that people expect of such functions.
MANY_PARAMETERS = {
    "pipeline/export/diffusers_pipeline.py:__call__",
    "pipeline/generate/image_to_image.py:image_to_image",
    "pipeline/generate/inpaint.py:inpaint",
    "pipeline/generate/outpaint.py:outpaint",
    "pipeline/generate/outpaint.py:panorama",
}
MODULES_WITHOUT_A_TEST_FILE = 152

# Directly in a package whose parts are folders: what stands above or beside all of them.
LOOSE_MODULES = {
    "pipeline": {"api.py", "train_rank.py"},  # the last is a former name
    "flows": {"text_to_image.py", "mlflow_model.py"},  # the last is a former name
}
# They set the environment of child processes and of libraries, before anything else is imported.
PACKAGES_WITH_CODE = {
    "pipeline/__init__.py",
    "flows/__init__.py",
    "data_catalog/sources/__init__.py",
}
VAGUE_NAMES = {
    *(
        "told",
        "there",
        "made",
        "said",
        "chance",
        "held",
        "kept",
        "usual",
        "found",
        "given",
        "wanted",
    ),
}


@cache
def sources() -> dict[str, str]:
    files = (path for room in ROOMS for path in (REPOSITORY / room).rglob("*.py"))
    return {str(path.relative_to(REPOSITORY)): path.read_text(encoding="utf-8") for path in files}


@cache
def trees() -> dict[str, ast.Module]:
    return {name: ast.parse(text) for name, text in sources().items()}


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for name, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{name}:{node.name}", node


def users_of(library: str) -> set[str]:
    pattern = re.compile(rf"^\s*(from|import) {library}\b", re.MULTILINE)
    return {name for name, text in sources().items() if pattern.search(text)}


def prose() -> str:
    """README and the documentation."""
    pages = [REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md")]
    return "\n".join(page.read_text(encoding="utf-8") for page in pages)


def test_each_library_is_named_where_it_belongs() -> None:
    assert users_of("img2dataset") == {"pipeline/download/shard_downloader.py"}
    assert users_of("rich.table") == {"flows/terminal/text_table.py"}, "which cuts no cell"
    carried = {
        "pipeline/export/diffusers_pipeline.py",
        "pipeline/export/diffusers_transformer.py",
    }  # by exports, which diffusers runs
    example = "pipeline/export/diffusers.py"  # in the text of the card
    assert users_of("diffusers") == {"tld_model/encoders/vae.py", example, *carried}
    assert users_of("transformers") == {
        "tld_model/encoders/clip.py",
        "tld_model/encoders/sentence_modules.py",
        "tld_model/encoders/text_model.py",
        "pipeline/export/diffusers_pipeline.py",
        "pipeline/scoring/feature_networks.py",
    }


def test_no_file_can_run_code_by_being_loaded() -> None:
    for name, text in sources().items():
        for call in re.findall(r"torch\.load\([^)]*\)", text):
            assert "weights_only=True" in call, name
        loads = r"allow_pickle=True|pickle\.loads?\(|yaml\.(unsafe_)?load\(|joblib|cloudpickle"
        assert not re.search(loads, text), name


def test_every_module_opens_with_what_it_is() -> None:
    assert not [name for name, tree in trees().items() if not ast.get_docstring(tree)]


def test_packages_hold_a_paragraph_and_no_code() -> None:
    for name, tree in trees().items():
        if name.endswith("__init__.py") and name not in PACKAGES_WITH_CODE:
            assert len(tree.body) == 1, f"{name} holds more than its docstring"


def test_what_consists_of_folders_has_no_loose_modules() -> None:
    for package, expected in LOOSE_MODULES.items():
        modules = {path.name for path in (REPOSITORY / package).glob("*.py")} - {"__init__.py"}
        assert modules == expected, "a module belongs in the folder of what it is about"


def test_modules_are_short() -> None:
    long = {name for name, text in sources().items() if text.count("\n") > LONGEST_MODULE}
    assert long == LONG_MODULES


def test_functions_are_short() -> None:
    def lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
        return (node.end_lineno or node.lineno) - node.lineno + 1

    assert {name for name, node in functions() if lines(node) > LONGEST_FUNCTION} == LONG_FUNCTIONS


def test_functions_take_few_parameters() -> None:
    """Commands may take more: their options are those of the command line."""

    def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
        names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        return len([name for name in names if name not in ("self", "cls")])

    many = {name for name, node in functions() if parameters(node) > MOST_PARAMETERS}
    assert {name for name in many if not name.startswith("flows/cli/")} == MANY_PARAMETERS


def test_names_say_what_they_hold() -> None:
    vague = set()
    for name, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                vague |= {(name, node.lineno, node.id)} if node.id in VAGUE_NAMES else set()
            elif isinstance(node, ast.arg) and node.arg in VAGUE_NAMES:
                vague.add((name, node.lineno, node.arg))
    assert not vague


def test_no_two_classes_have_one_name() -> None:
    homes: dict[str, list[str]] = {}
    for name, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(name)
    assert not {name: where for name, where in homes.items() if len(where) > 1}


def test_text_files_are_utf_8_whatever_the_locale_says() -> None:
    for name, tree in trees().items():
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
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


def test_figures_are_read_through_their_models() -> None:
    """As `EncodingsFigures.of(manifest).latent_shape`, so that readers and writers have one schema.
    The one who looks inside a manifest or an output puts what a stage returned into its manifest.
    """
    tools = {
        str(path.relative_to(REPOSITORY)): ast.parse(path.read_text(encoding="utf-8"))
        for path in (REPOSITORY / "tools").rglob("*.py")
    }
    readers = {
        name
        for name, tree in {**trees(), **tools}.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "figures"
    }
    assert readers == {"data_catalog/storage/manifest.py", "pipeline/stages/run_stage.py"}
    templates = (REPOSITORY / "pipeline/reporting/templates").glob("*.j2")
    assert not [path.name for path in templates if ".figures" in path.read_text(encoding="utf-8")]


def test_there_is_no_drawer_for_odds_and_ends() -> None:
    drawers = ("utils", "helpers", "common", "misc")
    assert not [name for name in sources() if Path(name).stem in drawers]


def test_the_documentation_names_modules_that_exist() -> None:
    for path in re.findall(
        r"`((?:data_catalog|tld_model|pipeline|flows|tools)/[\w/]+\.py)`", prose()
    ):
        assert (REPOSITORY / path).exists(), path


def test_the_picture_of_the_house_names_every_module() -> None:
    """But for the commands, which have a file each, and what starts the command line."""
    page = (REPOSITORY / "docs/explanation/architecture.md").read_text(encoding="utf-8")
    modules = {Path(name).name for name in sources() if not name.startswith("flows/cli/")}
    missing = {name for name in modules if name not in page} - {"__init__.py"}
    assert not missing, "docs/explanation/architecture.md does not say what they are"


def test_images_are_opened_by_the_one_function_that_lists_formats() -> None:
    door = "data_catalog/image_formats.py"
    opened = re.compile(r"\bImage\.open\(|\bimread\(|\bImage import open\b")
    assert {name for name, text in sources().items() if opened.search(text)} == {door}
    decoding = {name for name, text in sources().items() if "cv2.imdecode(" in text}
    assert decoding == {"data_catalog/images.py"}, "which looks at the header first"


def test_that_a_setting_changes_speed_only_is_said_by_its_marker() -> None:
    hand_written = {name for name, text in sources().items() if "hanges speed only" in text}
    assert hand_written == {"pipeline/config/section.py"}


def test_tests_lie_where_the_code_lies() -> None:
    for path in (REPOSITORY / "tests").rglob("test_*.py"):
        folder = path.relative_to(REPOSITORY / "tests").parent
        if folder.parts and folder.parts[0] in ROOMS:
            assert (REPOSITORY / folder).is_dir(), f"{folder} is no folder of the code"


def test_no_more_modules_are_without_a_test_file_of_their_own() -> None:
    """Others are tested by what uses them. A new module brings its test file."""
    modules = [Path(name) for name in sources() if not name.endswith("__init__.py")]
    homes = [REPOSITORY / "tests" / module.parent / f"test_{module.name}" for module in modules]
    assert len([home for home in homes if not home.exists()]) <= MODULES_WITHOUT_A_TEST_FILE
