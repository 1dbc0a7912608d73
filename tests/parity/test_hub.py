"""`from_pretrained` and `push_to_hub` with the real client of the Hugging Face Hub and a server on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rembert import RemBertConfig, RemBertTokenizer, RemBertTokenizerFast
from rembert.common.errors import CheckpointError, NotFoundError
from tests.common.tokenizer_cases import MODEL
from tests.frameworks import Framework, on_both, small_config
from tests.hub_server import TOKEN, HubServer

IDS = np.array([[3, 5, 4]])


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A server, and a client as it is with its address in `HF_ENDPOINT`, an empty cache and no stored token."""
    constants = pytest.importorskip("huggingface_hub.constants")
    server = HubServer()
    template = "/{repo_id}/resolve/{revision}/{filename}"
    for name, value in {
        "ENDPOINT": server.endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": server.endpoint + template,
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": False,
        "HF_TOKEN_PATH": str(tmp_path / "token"),
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield server
    server.close()


def _states(framework: Framework, model: Any) -> np.ndarray:
    return framework.array(framework.call(model, input_ids=IDS).last_hidden_state)


@on_both
def test_models_travel_through_the_hub(framework: Framework, hub: HubServer) -> None:
    config = small_config(num_hidden_layers=1)
    models = []
    for message in ("first", "second"):
        framework.seed(len(models))
        models.append(framework.build(config, "model"))
        models[-1].push_to_hub("someone/model", token=TOKEN, private=True, commit_message=message)
    repository = hub.repositories["someone/model"]
    assert repository.private
    assert repository.messages == ["first", "second"]
    assert set(repository.commits[1]) == {"config.json", "model.safetensors"}
    older = framework.load("someone/model", "model", token=TOKEN, revision=f"{1:040x}")  # type: ignore[arg-type]
    np.testing.assert_array_equal(_states(framework, older), _states(framework, models[0]))
    assert sorted(hub.downloads) == ["config.json", "model.safetensors"]
    newer = framework.load("someone/model", "model", token=TOKEN)  # type: ignore[arg-type]
    np.testing.assert_array_equal(_states(framework, newer), _states(framework, models[1]))
    assert sorted(hub.downloads) == ["config.json", *["model.safetensors"] * 2]  # the same ETag is in the cache
    with pytest.raises(NotFoundError, match="`someone/model` is neither a path here nor a repository"):
        framework.load("someone/model", "model")  # type: ignore[arg-type]
    hub.close()
    cached = framework.load("someone/model", "model", token=TOKEN)  # type: ignore[arg-type]
    np.testing.assert_array_equal(_states(framework, cached), _states(framework, models[1]))


@on_both
def test_one_commit_replaces_the_older_weights(framework: Framework, hub: HubServer, tmp_path: Path) -> None:
    framework.seed(1)
    first, second = framework.build(small_config(), "model"), framework.build(small_config(), "model")
    first.push_to_hub("someone/model", token=TOKEN)
    repository = hub.repositories["someone/model"]
    repository.commits[-1] |= {"README.md": b"kept", "onnx/model.safetensors": b"kept"}
    settings = {"repo_id": "someone/model", "token": TOKEN, "max_shard_size": 6000}
    second.save_pretrained(tmp_path / "shards", push_to_hub=True, **settings)
    assert len(repository.commits) == 3  # with the empty one
    saved = {path.name for path in (tmp_path / "shards").iterdir()}
    assert len(saved) > 3
    assert set(repository.commits[-1]) == {*saved, "README.md", "onnx/model.safetensors"}
    loaded = framework.load("someone/model", "model", token=TOKEN)  # type: ignore[arg-type]
    np.testing.assert_array_equal(_states(framework, loaded), _states(framework, second))
    first.push_to_hub("someone/model", token=TOKEN, safe_serialization=False)
    assert len(repository.commits[-1]) == 4  # the shards are read before this format
    loaded = framework.load("someone/model", "model", token=TOKEN)  # type: ignore[arg-type]
    np.testing.assert_array_equal(_states(framework, loaded), _states(framework, first))


def test_configurations_and_tokenizers_travel_through_the_hub(hub: HubServer, tmp_path: Path) -> None:
    config, tokenizer = small_config(hidden_act="relu"), RemBertTokenizer(MODEL, model_max_length=9)
    config.push_to_hub("someone/files", token=TOKEN)
    tokenizer.save_pretrained(tmp_path / "files", push_to_hub=True, repo_id="someone/files", token=TOKEN)
    repository = hub.repositories["someone/files"]
    assert not repository.private
    repository.commits[-1]["model.safetensors"] = b"no weights: nothing here asks for them"
    assert RemBertConfig.from_pretrained("someone/files") == config
    for kind in (RemBertTokenizer, RemBertTokenizerFast):
        loaded = kind.from_pretrained("someone/files")
        assert (loaded("a b"), loaded.model_max_length) == (tokenizer("a b"), 9)
    assert "model.safetensors" not in hub.downloads
    assert len(hub.downloads) == len(set(hub.downloads))
    repository.commits[-1] |= {f"inner/{name}": content for name, content in repository.commits[1].items()}
    inner = RemBertConfig.from_pretrained("someone/files", subfolder="inner", cache_dir=tmp_path / "other")
    assert inner == config
    with pytest.raises(NotFoundError, match="with the revision 'v9'"):
        RemBertConfig.from_pretrained("someone/files", revision="v9")
    with pytest.raises(CheckpointError, match=r"`someone/files` cannot be uploaded: .*401"):
        config.push_to_hub("someone/files", token="wrong")
