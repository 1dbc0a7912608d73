"""Names of the Hugging Face Hub, against huggingface_hub itself where it needs no network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rembert import RemBertConfig, RemBertTokenizer, RemBertTokenizerFast
from rembert.bridge import open_checkpoint
from rembert.common.errors import InputError, MissingDependencyError, NotFoundError
from rembert.common.hub import _wanted, locate
from rembert.common.keywords import HubOptions
from tests.frameworks import Framework, on_both

GOLDEN = Path(__file__).parent.parent / "fixtures" / "golden"
TOKENIZER = Path(__file__).parent.parent / "fixtures" / "tokenizer"
Hub = tuple[ModuleType, dict[str, Any]]  # the client, and what it was asked for


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The hub's client with its two calls replaced: a list of files, and what was asked for."""
    client = pytest.importorskip("huggingface_hub")
    asked = {}
    client.files = ["config.json"]

    class Api:
        def list_repo_files(self, name: str, revision: str | None, token: Any) -> list[str]:
            asked["listed"] = (name, revision, token)
            return client.files

    def snapshot_download(name: str, **options: Any) -> str:
        asked.update(name=name, proxy=os.environ.get("HTTPS_PROXY"), **options)
        return str(GOLDEN / "model")

    monkeypatch.setattr(client, "HfApi", Api)
    monkeypatch.setattr(client, "snapshot_download", snapshot_download)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return client, asked


@pytest.mark.parametrize(
    ("files", "chosen", "left"),
    [
        (["model.safetensors", "pytorch_model.bin", "tf_model.h5"], "model.safetensors", "pytorch_model.bin"),
        (["pytorch_model.bin", "tf_model.h5", "rust_model.ot"], "pytorch_model.bin", "tf_model.h5"),
        (["tf_model-00001-of-00002.h5", "tf_model.h5.index.json"], "tf_model-*-of-*.h5", "model.safetensors"),
        (["model.weights.h5", "tf_model.h5"], "tf_model.h5", "model.weights.h5"),
        (["saved_model.pb", "variables/variables.index"], "variables/variables.index", "model.safetensors"),
    ],
)
def test_only_one_format_is_downloaded(hub: Hub, files: list[str], chosen: str, left: str) -> None:
    client, asked = hub
    client.files = [*files, "config.json", "sentencepiece.model"]
    with open_checkpoint("google/rembert") as checkpoint:
        assert checkpoint.config is not None
        assert checkpoint.path == GOLDEN / "model"
    assert asked["name"] == "google/rembert"
    assert chosen in asked["allow_patterns"]
    assert left not in asked["allow_patterns"]
    assert {"*.json", "sentencepiece.model"} <= set(asked["allow_patterns"])


def test_existing_paths_are_never_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:
    _, asked = hub
    (tmp_path / "google" / "rembert").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert locate("google/rembert") == Path("google/rembert")
    for path in (
        "/no/such",
        "rembert",
        "./google/other",
        "../a/b",
        "a/b/c",
        "a/../b",
        "out/model/",
        Path("out/model"),
    ):
        assert locate(path) == Path(path)
    assert locate("~/model") == Path.home() / "model"
    assert not asked


@pytest.mark.parametrize("path", ["./out/model", "out/model/", "/no/model", "~/no model", Path("out/model")], ids=str)
def test_a_missing_path_is_the_same_error_everywhere(path: str | Path, hub: Hub, tmp_path: Path) -> None:
    _, asked = hub
    for load in (RemBertConfig.from_pretrained, RemBertTokenizer.from_pretrained, open_checkpoint):
        with pytest.raises(NotFoundError, match=r"There is no file or directory .*model\. Expected: a "):
            load(path)
    assert issubclass(NotFoundError, OSError)
    assert not asked
    for load in (RemBertConfig.from_pretrained, RemBertTokenizer.from_pretrained, open_checkpoint):
        with pytest.raises(NotFoundError, match="holds no "):
            load(tmp_path)


@on_both
def test_models_name_a_missing_path(framework: Framework, hub: Hub) -> None:
    with pytest.raises(NotFoundError, match=r"There is no file or directory out/model"):
        framework.load("./out/model", "model")  # type: ignore[arg-type]
    assert not hub[1]


def test_without_the_client_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependencyError, match=r"google/rembert.*pip install 'rembert\[hub\]'"):
        open_checkpoint("google/rembert")


def test_configurations_and_tokenizers_take_a_name(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    client, asked = hub
    client.files = ["model.safetensors", "config.json", "sentencepiece.model"]
    secret = {"token": "hf_secret", "cache_dir": "cache", "force_download": True, "proxies": {"https": "proxy:1"}}
    config = RemBertConfig.from_pretrained("google/rembert", revision="v1", use_safetensors=True, **secret)
    assert config.hidden_size == 32
    assert config.name_or_path == "google/rembert"
    assert "hf_secret" not in config.to_json_string(use_diff=False)
    assert (asked["revision"], asked["token"], asked["cache_dir"]) == ("v1", "hf_secret", "cache")
    assert asked["force_download"] is True
    assert asked["proxy"] == "proxy:1"
    assert "HTTPS_PROXY" not in os.environ
    assert asked["allow_patterns"] == ["*.json", "sentencepiece.model", "sent_piece.model"]  # not the weights
    monkeypatch.setattr(client, "snapshot_download", lambda name, **options: str(TOKENIZER))
    for kind in (RemBertTokenizer, RemBertTokenizerFast):
        loaded = kind.from_pretrained("google/rembert", use_fast=True, legacy=None, local_files_only=False, **secret)
        assert loaded.tokenize("a b") == kind.from_pretrained(TOKENIZER).tokenize("a b")


@on_both
def test_models_take_a_name(hub: Hub, framework: Framework) -> None:
    client, asked = hub
    client.files = ["model.safetensors", "config.json", "sentencepiece.model"]
    model = framework.load("google/rembert", "model", revision="v2", token="hf_secret", low_cpu_mem_usage=True)
    assert model.config.hidden_size == 32
    assert model.config.name_or_path == "google/rembert"
    assert asked["listed"] == ("google/rembert", "v2", "hf_secret")
    assert (asked["revision"], asked["token"]) == ("v2", "hf_secret")
    assert "hf_secret" not in model.config.to_json_string(use_diff=False)
    assert "model.safetensors" in asked["allow_patterns"]


def in_offline_process(cache: Path, name: str) -> subprocess.CompletedProcess[str]:
    program = "import sys; from rembert.bridge import open_checkpoint; print(open_checkpoint(sys.argv[1]).path)"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache)}
    command = [sys.executable, "-c", program, name]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=GOLDEN.parent.parent.parent)


def test_offline_the_cache_is_used(tmp_path: Path) -> None:
    """A cache as the client itself lays it out, read by the real client."""
    pytest.importorskip("huggingface_hub")
    repository = tmp_path / "models--google--rembert"
    snapshot = repository / "snapshots" / ("a" * 40)
    (repository / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    for name in ("config.json", "model.safetensors"):
        (repository / "blobs" / name).write_bytes((GOLDEN / "model" / name).read_bytes())
        (snapshot / name).symlink_to(f"../../blobs/{name}")
    result = in_offline_process(tmp_path, "google/rembert")
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(snapshot)


def test_offline_and_not_in_the_cache(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    result = in_offline_process(tmp_path, "google/rembert")
    assert "NotFoundError: `google/rembert` is no path here, not in the cache" in result.stderr


def test_local_files_only_asks_nobody(hub: Hub) -> None:
    _, asked = hub
    RemBertConfig.from_pretrained("google/rembert", local_files_only=True)
    assert asked["local_files_only"] is True
    with open_checkpoint("google/rembert", hub=HubOptions(local_files_only=True)) as checkpoint:
        assert checkpoint.config is not None
    assert "listed" not in asked


@pytest.mark.parametrize(
    ("subfolder", "folder"),
    [("", ""), (".", ""), ("./a/", "a/"), (".old", ".old/"), ("a./b", "a./b/"), ("a[1]", "a[1]/")],
)
def test_patterns_match_the_files_of_the_subfolder(subfolder: str, folder: str) -> None:
    files = [f"{folder}config.json", f"{folder}model.safetensors", "old/config.json", "b/model.safetensors"]
    patterns = _wanted(files, [["model.safetensors"]], HubOptions(subfolder=subfolder))
    filtering = pytest.importorskip("huggingface_hub.utils")
    wanted = list(filtering.filter_repo_objects(files, allow_patterns=patterns))
    assert wanted[:2] == files[:2]
    assert not folder or wanted == files[:2]


def test_a_subfolder_holds_all_files(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client, asked = hub
    inner = tmp_path / "checkpoints" / "last"
    shutil.copytree(GOLDEN / "model", inner)
    for path in TOKENIZER.glob("sentencepiece.model"):
        shutil.copy(path, inner)
    (tmp_path / "config.json").write_text('{"vocab_size": 7}')  # not that of the subfolder
    monkeypatch.setattr(client, "snapshot_download", lambda name, **options: asked.update(options) or str(tmp_path))
    client.files = ["model.safetensors", "checkpoints/last/pytorch_model.bin"]
    for source in (tmp_path, "google/rembert"):
        assert RemBertConfig.from_pretrained(source, subfolder="checkpoints/last").hidden_size == 32
        assert RemBertTokenizer.from_pretrained(source, subfolder="checkpoints/last").vocab_size > 7
        with open_checkpoint(source, hub=HubOptions(subfolder="checkpoints/last")) as checkpoint:
            assert checkpoint.directory == inner
    patterns = asked["allow_patterns"]
    assert {"checkpoints/last/*.json", "checkpoints/last/pytorch_model.bin"} <= set(patterns)
    assert all(pattern.startswith("checkpoints/last/") for pattern in patterns)
    with pytest.raises(NotFoundError, match="nowhere"):
        RemBertConfig.from_pretrained(tmp_path, subfolder="nowhere")
    for outside in ("../other", "/etc"):
        with pytest.raises(InputError, match="`subfolder` must be a relative path inside"):
            RemBertConfig.from_pretrained(tmp_path, subfolder=outside)


def test_a_repository_that_does_not_exist(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    client, _ = hub

    class Missing(client.errors.RepositoryNotFoundError):
        def __init__(self) -> None:  # the real one wants a response of the network
            Exception.__init__(self, "404: not found")

    class Api:
        def list_repo_files(self, name: str, **options: Any) -> None:
            raise Missing

    monkeypatch.setattr(client, "HfApi", Api)
    with pytest.raises(NotFoundError, match="`google/nothing` is neither a path here nor a repository"):
        open_checkpoint("google/nothing")
