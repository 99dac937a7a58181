"""Where compiled C code is kept, and why it can't be used."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tui_llm.common.errors import UserError
from tui_llm.llm.model import kernels, native, native_training

suitable = pytest.mark.skipif(bool(native.unsuitable()), reason=native.unsuitable())


@suitable
def test_both_are_kept_in_the_folder_that_the_environment_names(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = (native._file.__wrapped__, native_training._file.__wrapped__)  # the process keeps what it found first
    monkeypatch.setenv(native.FOLDER, str(tmp_path))
    assert {file().parent for file in files} == {tmp_path}
    monkeypatch.delenv(native.FOLDER)
    assert {file().parent for file in files} == {home / "cache" / "native"}


def test_the_tests_share_a_folder_that_is_not_the_users() -> None:
    folder = Path(os.environ[native.FOLDER])
    assert {native._file().parent, native_training._file().parent} == {folder}


def no_folder(folder: Path, target: Path) -> str:
    folder.write_text("")  # as with HOME=/dev/null
    return f"nothing can be compiled into {folder}: "


def no_compiling(folder: Path, target: Path) -> str:
    return "its compiler failed"


def no_library(folder: Path, target: Path) -> str:
    folder.mkdir()
    target.write_text("half a library")
    return "what was compiled can't be loaded: "


@suitable
@pytest.mark.skipif(native.compiler() is None, reason="there is no C compiler")
@pytest.mark.parametrize("damage", [no_folder, no_compiling, no_library])
def test_it_is_said_why_what_is_compiled_can_not_be_used(
    damage: Callable[[Path, Path], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "x.c", tmp_path / "made" / "x.so"
    source.write_text("this is not C")
    why = damage(target.parent, target)
    monkeypatch.setattr(native, "_SOURCE", source)
    for module in (native, native_training):
        monkeypatch.setattr(module, "_file", lambda: target)
        monkeypatch.setattr(module, "library", module.library.__wrapped__)
    assert native.why_not() == "", "it is not known yet"
    with pytest.raises(UserError, match="native") as refused:
        kernels.choose("int8", "native")
    assert str(refused.value).startswith(f"the kernel native can't be used here: {why}")
    assert native.why_not().startswith(why) and native.library() is None
    assert kernels.choose("int8").name == "torch", "without a name it is passed over"
    assert native_training.why_not() == native.why_not() and native_training.library() is None
    assert not native_training.must_compile()
