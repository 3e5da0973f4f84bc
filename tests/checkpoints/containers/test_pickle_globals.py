from __future__ import annotations

import ast
import inspect
from typing import Any

import pytest

from vitreous.checkpoints.containers import pickle_globals
from vitreous.checkpoints.containers.pickle_globals import Global, NumberType, Record, Refused, look_up
from vitreous.checkpoints.containers.pickle_machine import run_pickle


def test_whatever_a_name_becomes_is_defined_here() -> None:
    """No class and no function of a library can be reached: what is called is a function of that file."""
    for full, known in pickle_globals._KNOWN.items():
        assert type(known) in (Global, NumberType), full
        if isinstance(known, Global) and known.call is not None:
            assert inspect.isfunction(known.call) and known.call.__module__ == pickle_globals.__name__, full


def test_the_file_imports_nothing_that_could_run_code() -> None:
    tree = ast.parse(inspect.getsource(pickle_globals))
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    standard = {"__future__", "math", "re", "struct", "collections.abc", "dataclasses", "pathlib", "typing"}
    assert names == standard | {"vitreous.checkpoints.containers.contract"}


@pytest.mark.parametrize(
    "full", ["os.system", "torch.load", "torch.jit.load", "builtins.list", "collections.defaultdict"]
)
def test_what_is_not_in_the_table_is_refused_by_name(full: str) -> None:
    with pytest.raises(Refused, match=f"asks for {full}, which can run code"):
        look_up(*full.rsplit(".", 1))


def test_a_record_holds_attributes_and_does_nothing(bad: dict[str, Any]) -> None:
    text, mapping, program = bad["text"], bad["mapping"], bad["program"]
    made = b"c__torch__.torch.nn\nLinear\n)\x81" + mapping(text("bias") + b"N") + b"b"
    found, _ = run_pickle(program(made))
    assert isinstance(found, Record) and found.attributes == {"bias": None}


@pytest.mark.parametrize(
    "body",
    [
        b"ctorch\nTensor\n)R",
        b"cargparse\nNamespace\n)R",
        b"ccollections\nOrderedDict\nK\1\x85\x81",
        b"ctorch\nSize\n)\x81",
        b"ctorch\nFloatStorage\n)R",
        b"ccollections\nOrderedDict\n](K\1](K\1ee\x85R",
        b"ctorch\nSize\nK\1\x85R",
        b"cnumpy\ndtype\nU\2V9\x85R",
        b"cnumpy\ndtype\nU\2f8\x85R(K\3U\1>tb",
        b"cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nU\2f8\x85RC\1x\x86R",
        b"c_codecs\nencode\nU\1xU\5rot13\x86R",
        b"cpathlib\nPosixPath\nK\1\x85R",
        b"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._tensor\n_rebuild_from_type_v2\nctorch\nTensor\n)NtR",
        b"ctorch._utils\n_rebuild_parameter\n(N\x88NtR",
    ],
)
def test_a_call_with_the_wrong_arguments_is_refused(body: bytes) -> None:
    with pytest.raises(Refused):
        run_pickle(b"\x80\2" + body + b".")
