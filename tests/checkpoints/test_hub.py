from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import huggingface_hub
import pytest
import timm
from huggingface_hub import constants
from timm.models import get_pretrained_cfg

from vitreous.checkpoints.hub import fetch_files, files_of, timm_repository
from vitreous.errors import CheckpointError, ConfigError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "README.md": b"read me",
    "config.json": b"{}",
    "preprocessor_config.json": b"{ }",
    "model.safetensors": bytes(3_000_000),
    "pytorch_model.bin": b"a pickle",
    "onnx/model.safetensors": b"another",
}
Cache = Callable[..., Path]
Server = Callable[..., list[str]]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """Fills huggingface_hub's cache as huggingface_hub does; the cache is empty until then."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def fill(*names: str, ref: str = "main") -> Path:
        repository = tmp_path / "hub" / "models--org--name"
        folder = repository / "snapshots" / COMMIT
        for part in (folder, repository / "blobs", repository / "refs"):
            part.mkdir(parents=True, exist_ok=True)
        (repository / "refs" / ref).write_text(COMMIT)
        for name in names:
            (repository / "blobs" / f"of-{name}").write_bytes(name.encode())
            (folder / name).symlink_to(Path("../../blobs") / f"of-{name}")
        return folder

    return fill


@pytest.fixture
def serve(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A hub on this machine with one repository; `serve` returns the paths that it was asked for."""
    servers = []

    def start(files: dict[str, bytes], status: int = 200, error: str = "", page: bytes = b"") -> list[str]:
        asked: list[str] = []

        class Hub(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(with_body=True)

            def do_HEAD(self) -> None:
                self.answer(with_body=False)

            def answer(self, with_body: bool) -> None:
                asked.append(f"{self.command} {self.path}")
                name = self.path.partition("/resolve/")[2].partition("/")[2]
                listing = {"id": "org/name", "sha": COMMIT}
                siblings = [{"rfilename": name, "size": len(content)} for name, content in files.items()]
                body = page or files.get(name) or json.dumps(listing | {"siblings": siblings}).encode()
                self.send_response(status)
                for key, value in (("X-Error-Code", error), ("X-Repo-Commit", COMMIT), ("ETag", f'"{name or 0}"')):
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if with_body:
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
        servers.append(server)
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        return asked

    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    huggingface_hub.close_session()
    yield start
    huggingface_hub.close_session()
    for server in servers:
        server.shutdown()
        server.server_close()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_repository_is_fetched_without_what_the_model_does_not_need(
    serve: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = serve(FILES)
    folder = fetch_files("org/name")
    assert names(folder) == ["config.json", "model.safetensors", "preprocessor_config.json"]
    assert all((folder / name).read_bytes() == FILES[name] for name in names(folder))
    fetched = capfd.readouterr()
    assert fetched.out == "" and "fetching org/name" in fetched.err and "3/3" in fetched.err
    assert len(fetched.err.splitlines()) == 1
    asked.clear()
    assert fetch_files("org/name") == folder
    assert not [line for line in asked if line.startswith("GET") and "/resolve/" in line]
    assert capfd.readouterr().err == ""


def test_what_was_fetched_is_there_without_a_connection(serve: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(FILES)
    folder = fetch_files("org/name")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch_files("org/name") == folder
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    serve({}, status=503)
    assert fetch_files("org/name") == folder


def test_weights_in_parts_are_fetched_whole(serve: Server) -> None:
    parts = {f"model-0000{part}-of-00002.safetensors": b"part" for part in (1, 2)}
    serve({"model.safetensors.index.json": b"{}", **parts})
    assert names(fetch_files("org/name")) == sorted(["model.safetensors.index.json", *parts])


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (404, "RepoNotFound", "org/name is not on the Hugging Face Hub, or is private"),
        (403, "GatedRepo", "it is gated; accept its terms"),
        (404, "RevisionNotFound", "org/name has no revision other"),
        (500, "", "org/name at other cannot be fetched"),
    ],
)
def test_what_the_hub_refuses_is_said_in_three_lines(serve: Server, status: int, error: str, message: str) -> None:
    serve(FILES, status, error)
    with pytest.raises(CheckpointError, match=message) as refusal:
        fetch_files("org/name", "other")
    assert len(str(refusal.value).splitlines()) <= 3


def test_a_page_that_is_no_hub_is_refused(serve: Server) -> None:
    serve(FILES, page=b"<html>log in to this hotel")
    with pytest.raises(CheckpointError, match="org/name cannot be fetched"):
        fetch_files("org/name")


def test_no_hub_at_all_is_refused(serve: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(FILES)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(CheckpointError, match="org/name cannot be fetched"):
        fetch_files("org/name")


def test_a_repository_without_weights_lists_what_it_has(serve: Server) -> None:
    serve({"config.json": b"{}", "tf_model.h5": b"keras", "evil\x1b[2J": b"?"})
    with pytest.raises(CheckpointError, match=r"no weights that vitreous reads.*tf_model\.h5") as refusal:
        fetch_files("org/name")
    assert "\x1b" not in str(refusal.value)


@pytest.mark.parametrize("revision", [None, "v1", COMMIT])
def test_the_cache_is_enough_without_a_connection(cache: Cache, revision: str | None) -> None:
    folder = cache("config.json", "model.safetensors", ref=revision or "main")
    assert fetch_files("org/name", revision) == folder


def test_without_a_connection_and_a_cache_the_error_says_what_to_fetch_and_where_to_put_it(
    cache: Cache, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError) as refusal:
        fetch_files("org/name")
    assert str(refusal.value) == (
        "org/name cannot be fetched, and the cache has not all of it: HF_HUB_OFFLINE is set\n"
        "where there is a connection, fetch config.json and model.safetensors (`hf download org/name`); then copy\n"
        f"models--org--name into {tmp_path / 'hub'}, or put the files into any folder and give that FOLDER"
    )


@pytest.mark.parametrize(
    ("have", "lacking"),
    [
        (["config.json"], "fetch model.safetensors "),
        (
            ["config.json", "model.safetensors.index.json", "model-00002-of-00003.safetensors"],
            r"fetch model-00001-of-00003.safetensors and model-00003-of-00003.safetensors ",
        ),
        (["model.safetensors.index.json"], r"fetch the files that model.safetensors.index.json lists "),
        (["model-00001-of-00002.safetensors"], "fetch config.json and model.safetensors "),
    ],
)
def test_a_cache_with_a_part_of_the_files_says_which_are_lacking(cache: Cache, have: list[str], lacking: str) -> None:
    cache(*have)
    with pytest.raises(CheckpointError, match=lacking) as refusal:
        fetch_files("org/name")
    assert len(str(refusal.value).splitlines()) == 3


def test_a_link_whose_file_is_gone_counts_as_lacking(cache: Cache) -> None:
    (cache("config.json", "model.safetensors") / "model.safetensors").resolve().unlink()
    with pytest.raises(CheckpointError, match=r"fetch model\.safetensors "):
        fetch_files("org/name")


@pytest.mark.parametrize(
    "repository",
    ["", "name", "org/", "/name", "org/name/more", "../name", "org/..", "org/a..b", "org--x/name", "org/name.",
     "org/a b", "https://host/org/name", "org/name\n", "org/\x1b[2J", "org\\name", "C:/name", "~/name",
     "a" * 999 + "/name"],
)  # fmt: skip
def test_what_is_no_name_of_a_repository_is_refused(repository: str) -> None:
    with pytest.raises(ConfigError, match="give ORG/NAME") as refusal:
        fetch_files(repository)
    assert "\x1b" not in str(refusal.value) and len(str(refusal.value)) < 250


@pytest.mark.parametrize("revision", ["", "../main", "a/../b", "/etc/passwd", "-x", "a b", "main\n"])
def test_what_is_no_revision_is_refused(revision: str) -> None:
    with pytest.raises(ConfigError, match="is no branch, tag or commit"):
        fetch_files("org/name", revision)


def test_a_missing_huggingface_hub_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=r'pip install "vitreous\[hub\]"'):
        fetch_files("org/name")


def test_an_old_huggingface_hub_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repo_id, filename: "")
    with pytest.raises(ConfigError, match=r"too old: pip install \"huggingface_hub>=1\.1\""):
        fetch_files("org/name")


@pytest.mark.parametrize(
    ("listed", "chosen"),
    [
        # google/vit-base-patch16-224
        ("README.md config.json flax_model.msgpack model.safetensors preprocessor_config.json pytorch_model.bin "
         "tf_model.h5", "config.json preprocessor_config.json model.safetensors"),
        # laion/CLIP-ViT-B-32-laion2B-s34B-b79K, before it had safetensors
        ("config.json merges.txt open_clip_config.json open_clip_pytorch_model.bin preprocessor_config.json "
         "pytorch_model.bin tokenizer.json", "config.json preprocessor_config.json pytorch_model.bin"),
        # timm/ViT-B-16-SigLIP
        ("open_clip_config.json open_clip_model.safetensors open_clip_pytorch_model.bin tokenizer.json",
         "open_clip_model.safetensors"),
        # timm/vit_base_patch16_224.augreg_in21k
        ("README.md config.json model.safetensors pytorch_model.bin", "config.json model.safetensors"),
        ("ViT-B_16.npz README.md", "ViT-B_16.npz"),
        ("weights.pth optimizer.pt training_args.bin", "weights.pth"),
        ("a.npz b.npz config.json", "config.json"),
        ("fp16/model.safetensors config.json", "config.json"),
        ("model-00001-of-00002.safetensors config.json", "config.json"),
    ],
)  # fmt: skip
def test_of_a_repository_the_safest_weights_and_their_settings_are_chosen(listed: str, chosen: str) -> None:
    assert files_of(listed.split()) == chosen.split()


def test_repositories_of_timms_names_are_those_that_timm_knows() -> None:
    kinds = ("vit_*_patch*", "deit*_patch*", "beit*_patch*", "eva02_*_patch*")
    known = {name: get_pretrained_cfg(name).hf_hub_id for kind in kinds for name in timm.list_pretrained(kind)}
    elsewhere = {name for name, repository in known.items() if repository is None}
    assert len(known) > 250 and all(name.endswith("ijepa") for name in elsewhere)
    assert {name: timm_repository(name) for name in known.keys() - elsewhere} == {
        name: known[name] for name in known.keys() - elsewhere
    }


def test_the_name_of_a_repository_is_taken_as_timm_takes_it() -> None:
    assert timm_repository("hf-hub:org/name") == "org/name"
    for name in ("hf-hub:../name", "hf-hub:name"):
        with pytest.raises(ConfigError, match="give ORG/NAME"):
            timm_repository(name)


@pytest.mark.parametrize("name", ["vit_base_patch16_224", "", "vit.", "../vit.a", "vit.a/b", "vit.a.b", "local-dir:x"])
def test_a_name_that_does_not_say_which_weights_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="does not name its weights; give the whole name"):
        timm_repository(name)
