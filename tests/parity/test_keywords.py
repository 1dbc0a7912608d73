"""The keywords of `from_pretrained`, `save_pretrained`, `push_to_hub` and `from_config`, in both frameworks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from rembert import RemBertConfig, RemBertTokenizer
from rembert.common.errors import CheckpointError, ConfigError, InputError, KeywordError
from tests.frameworks import GOLDEN, PT, TF, Framework, needs_pt, needs_tf, on_both, small_config
from tests.parity.cases import CASES, build

CASE = next(case for case in CASES if case.name == "one_label_each")
TOKENIZER = Path(__file__).parent.parent / "fixtures" / "tokenizer"
# What the example scripts of transformers pass, and what means nothing here.
ACCEPTED: dict[str, Any] = {
    "cache_dir": None,
    "revision": "main",
    "token": None,
    "trust_remote_code": False,
    "from_tf": False,
    "ignore_mismatched_sizes": False,
    "low_cpu_mem_usage": True,
    "use_safetensors": True,
    "weights_only": True,
    "quantization_config": None,
    "device_map": "auto",
    "attn_implementation": None,
}


def _model(framework: Framework, **changes: Any) -> Any:
    return build(framework, CASE, CASE.config(**changes), dtype="float32")


def _equal(framework: Framework, one: Any, other: Any) -> None:
    first, second = framework.weights(one), framework.weights(other)
    assert list(first) == list(second)
    assert all((first[name] == second[name]).all() for name in first)


# ------------------------------------------------------------------ loading


@on_both
def test_keywords_of_transformers_are_accepted(framework: Framework, tmp_path: Path) -> None:
    model = _model(framework)
    model.save_pretrained(tmp_path)
    loaded = framework.load(tmp_path, CASE.head, config=tmp_path, finetuning_task="mnli", **ACCEPTED)
    _equal(framework, loaded, model)
    assert loaded.name_or_path == str(tmp_path)
    assert loaded.config.finetuning_task == "mnli"
    with pytest.raises(KeywordError, match="Did you mean `num_labels`"):
        framework.load(tmp_path, CASE.head, num_lables=3)
    with pytest.raises(KeywordError, match="`load_in_8bit` is a feature of transformers"):
        framework.load(tmp_path, CASE.head, load_in_8bit=True)
    with pytest.raises(InputError, match="`device_map` must"):
        framework.load(tmp_path, CASE.head, device_map={"rembert": "cpu", "classifier": "meta"})


@on_both
def test_a_device_is_named_as_in_transformers_and_in_either_framework(framework: Framework, tmp_path: Path) -> None:
    _model(framework).save_pretrained(tmp_path)
    own = ("/CPU:0", "/device:CPU:0", "CPU:0") if framework is TF else ("cpu:0",)
    for device_map in (None, "cpu", {"": "cpu"}, "auto", "balanced", "balanced_low_0", "sequential", *own):
        framework.load(tmp_path, CASE.head, device_map=device_map)
    for device_map in ({}, "disk", {"": "cpu", "classifier": "meta"}):
        with pytest.raises(InputError, match="`device_map` must"):
            framework.load(tmp_path, CASE.head, device_map=device_map)


@on_both
def test_a_saved_model_is_refused_with_the_way_to_it(framework: Framework, tmp_path: Path) -> None:
    with pytest.raises(KeywordError, match=r"`saved_model` .* `rembert\.tf\.exporting\.export_savedmodel`"):
        _model(framework).save_pretrained(tmp_path / "new", saved_model=True)
    assert not (tmp_path / "new").exists()
    _model(framework).save_pretrained(tmp_path / "new", saved_model=False)


@needs_tf
def test_keywords_beside_the_dictionary_of_a_keras_model_are_refused() -> None:
    model = _model(TF)
    with pytest.raises(KeywordError, match=r"from_config\(\) got an unexpected keyword: 'hidden_act'"):
        type(model).from_config(model.get_config(), hidden_act="relu")


@on_both
def test_a_state_dict_replaces_the_file(framework: Framework, tmp_path: Path) -> None:
    model = _model(framework)
    model.save_pretrained(tmp_path)
    doubled = {name: framework.tensor(array * 2) for name, array in framework.weights(model).items()}
    for path, config in ((tmp_path, None), (None, model.config)):
        loaded = framework.load(path, CASE.head, state_dict=doubled, config=config)  # type: ignore[arg-type]
        weights = framework.weights(loaded)
        assert all((weights[name] == framework.array(tensor)).all() for name, tensor in doubled.items())
    framework.set_weights(loaded, framework.weights(model))
    assert (framework.array(doubled["classifier.weight"]) == 2 * framework.weights(model)["classifier.weight"]).all()


@on_both
def test_names_are_mapped(framework: Framework, tmp_path: Path) -> None:
    model = _model(framework)
    weights = framework.weights(model)
    old = {name.replace("rembert.", "encoder_of_mine."): framework.tensor(array) for name, array in weights.items()}
    mapping = {r"^encoder_of_mine\.": "rembert."}
    loaded = framework.load(None, CASE.head, state_dict=old, config=model.config, key_mapping=mapping)  # type: ignore[arg-type]
    _equal(framework, loaded, model)
    with pytest.raises(CheckpointError, match="two tensors the name"):
        framework.load(None, CASE.head, state_dict=old, config=model.config, key_mapping={".*": "x"})  # type: ignore[arg-type]


@on_both
def test_sizes_are_refused_before_a_model_is_built(framework: Framework, tmp_path: Path) -> None:
    _model(framework).save_pretrained(tmp_path)
    for key, value in (("num_hidden_layers", 20000), ("hidden_size", 2**62), ("num_labels", 10**7)):
        with pytest.raises(ConfigError, match=f"{key}={value}"):
            framework.load(tmp_path, CASE.head, **{key: value})
    with pytest.raises(CheckpointError, match=r"has 2 layers\. Received: `num_hidden_layers=900`"):
        framework.load(tmp_path, CASE.head, num_hidden_layers=900)


@on_both
@pytest.mark.filterwarnings("ignore")
def test_configurations_of_transformers_make_a_model(framework: Framework) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.RemBertConfig(**{**small_config().to_dict(), "dtype": None})
    model = framework.build(theirs, CASE.head)
    assert isinstance(model.config, RemBertConfig)
    assert model.config is framework.base(model).config
    framework.call(model, input_ids=np.array([[1, 2, 3]]))


# ------------------------------------------------------------------ saving


@on_both
def test_variants_shards_and_older_formats(framework: Framework, tmp_path: Path) -> None:
    model = _model(framework)
    model.save_pretrained(tmp_path, variant="fp16")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.fp16.safetensors"]
    _equal(framework, framework.load(tmp_path, CASE.head, variant="fp16"), model)
    with pytest.raises(CheckpointError, match=r"Looked for: model\.safetensors"):
        framework.load(tmp_path, CASE.head)
    model.save_pretrained(tmp_path, variant="fp16", max_shard_size=6000)
    assert (tmp_path / "model.safetensors.index.fp16.json").is_file()
    assert len(list(tmp_path.glob("model.fp16-0000*-of-0000*.safetensors"))) > 1
    assert not (tmp_path / "model.fp16.safetensors").exists()
    _equal(framework, framework.load(tmp_path, CASE.head, variant="fp16"), model)
    model.save_pretrained(tmp_path / "older", safe_serialization=False)
    older = "pytorch_model.bin" if framework is PT else "tf_model.h5"
    assert sorted(path.name for path in (tmp_path / "older").iterdir()) == sorted(["config.json", older])
    _equal(framework, framework.load(tmp_path / "older", CASE.head), model)


@on_both
def test_only_the_main_process_writes(framework: Framework, tmp_path: Path) -> None:
    model = _model(framework)
    model.save_pretrained(tmp_path / "out", is_main_process=False)
    assert not (tmp_path / "out").exists()
    with pytest.raises(KeywordError, match="Did you mean `commit_message`"):
        model.save_pretrained(tmp_path / "out", comit_message="x")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"must be a directory. Received: .*file, which is a file"):
        model.save_pretrained(tmp_path / "file")


def test_save_function_writes_the_pickle(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    model = _model(PT)
    calls = []
    model.save_pretrained(
        tmp_path, safe_serialization=False, save_function=lambda state, path: calls.append(torch.save(state, path))
    )
    assert len(calls) == 1
    _equal(PT, PT.load(tmp_path, CASE.head), model)
    model.save_pretrained(
        tmp_path / "shards", safe_serialization=False, max_shard_size="1KB", save_function=torch.save
    )
    assert len(list((tmp_path / "shards").glob("pytorch_model-*.bin"))) > 1
    _equal(PT, PT.load(tmp_path / "shards", CASE.head), model)
    model.save_pretrained(tmp_path / "shards", safe_serialization=False, save_function=torch.save)
    assert sorted(path.name for path in (tmp_path / "shards").iterdir()) == ["config.json", "pytorch_model.bin"]


# ------------------------------------------------------------------ the Hub


class Hub:
    """A local stand-in for `huggingface_hub.HfApi` that keeps what it is given."""

    def __init__(self) -> None:
        self.made: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}

    def create_repo(self, repo_id: str, **options: Any) -> Any:
        self.made.append({"repo_id": repo_id, **options})
        return type("Repo", (), {"repo_id": f"me/{repo_id.rpartition('/')[2]}"})

    def list_repo_files(self, repo_id: str, **options: Any) -> list[str]:
        return list(self.files)

    def create_commit(self, *, operations: list[Any], **options: Any) -> str:
        self.made.append(options)
        self.files = {
            each.path_in_repo: Path(each.path_or_fileobj).read_bytes()
            for each in operations
            if hasattr(each, "path_or_fileobj")
        }
        return "done"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    client = pytest.importorskip("huggingface_hub")
    hub = Hub()
    monkeypatch.setattr(client, "HfApi", lambda: hub)
    return hub


@on_both
def test_models_are_pushed(framework: Framework, hub: Hub, tmp_path: Path) -> None:
    model = _model(framework)
    assert model.push_to_hub("mine", private=True, token="hf_secret", commit_message="First") == "done"
    assert hub.made[0] == {"repo_id": "mine", "private": True, "token": "hf_secret", "exist_ok": True}
    assert (hub.made[1]["repo_id"], hub.made[1]["commit_message"]) == ("me/mine", "First")
    assert set(hub.files) == {"config.json", "model.safetensors"}
    assert b"hf_secret" not in b"".join(hub.files.values())
    (tmp_path / "weights.safetensors").write_bytes(hub.files["model.safetensors"])
    weights = framework.weights(model)
    assert all((array == weights[name]).all() for name, array in load_file(tmp_path / "weights.safetensors").items())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "private.txt").write_text("not to be uploaded")
    model.save_pretrained(tmp_path / "out", push_to_hub=True, max_shard_size=6000)
    assert hub.made[2]["repo_id"] == "out"
    assert set(hub.files) == {path.name for path in (tmp_path / "out").iterdir()} - {"private.txt"}
    with pytest.raises(KeywordError, match="'privat'"):
        model.push_to_hub("mine", privat=True)


def test_configurations_and_tokenizers_are_pushed(hub: Hub, tmp_path: Path) -> None:
    RemBertConfig(num_labels=3).push_to_hub("mine", create_pr=True)
    assert json.loads(hub.files["config.json"])["id2label"]["2"] == "LABEL_2"
    assert hub.made[1]["create_pr"] is True
    tokenizer = RemBertTokenizer.from_pretrained(TOKENIZER)
    tokenizer.push_to_hub("me/mine", use_temp_dir=True)
    assert {"sentencepiece.model", "tokenizer.json", "tokenizer_config.json"} <= set(hub.files)
    tokenizer.save_pretrained(tmp_path / "out", push_to_hub=True, repo_id="me/other", legacy_format=False)
    assert hub.made[-2]["repo_id"] == "me/other"
    with pytest.raises(KeywordError, match="max_shard_size"):
        tokenizer.save_pretrained(tmp_path, max_shard_size=3)


# ------------------------------------------------------------------ models


@on_both
def test_models_are_made_from_configurations(framework: Framework) -> None:
    kind = framework.model_class(CASE.head)
    model = kind.from_config(small_config(), dtype="float16", hidden_act="relu")
    assert (model.config.hidden_act, model.config.num_labels) == ("relu", 5)
    assert {array.dtype for array in framework.weights(model).values()} == {np.dtype("float16")}
    with pytest.raises(KeywordError, match="'hiden_act'"):
        kind.from_config(small_config(), hiden_act="relu")
    with pytest.raises(ConfigError, match=r"`config` must be a RemBertConfig.*`RemBertConfig\.from_dict`"):
        kind.from_config(small_config().to_dict())


@on_both
def test_methods_of_transformers_models(framework: Framework) -> None:
    model = _model(framework)
    assert not model.can_generate()
    assert framework.model_class("causal-lm").can_generate()
    model.tie_weights()
    assert model.get_memory_footprint() == 4 * model.num_parameters()
    model.set_attn_implementation("eager")
    assert framework.base(model).config.attn_implementation == "eager"
    with pytest.raises(ConfigError, match="attn_implementation='flash'"):
        model.set_attn_implementation("flash")


def test_a_batch_that_is_not_unpacked_names_the_remedy() -> None:
    pytest.importorskip("torch")
    batch = {"input_ids": PT.tensor(np.array([[1, 2]]))}
    for head in ("model", "masked-lm", CASE.head, "question-answering"):
        with pytest.raises(InputError, match=r"`model\(\*\*batch\)`"):
            PT.build(small_config(), head)(batch)


def test_computed_parameters_are_named_before_saving(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from torch.nn.utils import parametrizations, prune

    pruned = _model(PT)
    prune.l1_unstructured(pruned.classifier, "weight", amount=2)
    with pytest.raises(InputError, match=r"`classifier` computes it .*prune\.remove"):
        pruned.save_pretrained(tmp_path / "out")
    prune.remove(pruned.classifier, "weight")
    pruned.save_pretrained(tmp_path / "pruned")
    normed = _model(PT)
    parametrizations.weight_norm(normed.classifier)
    with pytest.raises(InputError, match=r"`classifier` computes it .*remove_parametrizations"):
        normed.save_pretrained(tmp_path / "out")
    replaced = _model(PT)
    replaced.classifier = torch.nn.Sequential(torch.nn.Linear(12, 12), torch.nn.Linear(12, 5))
    with pytest.raises(InputError, match=r"`classifier` was replaced by a module with 0\.weight, .*subclass"):
        replaced.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_replaced_keras_classifier_is_named_before_saving(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    model = _model(TF)
    model.classifier = keras.Sequential([keras.layers.Dense(12), keras.layers.Dense(5)])
    with pytest.raises(InputError, match=r"`classifier` was replaced by a module with .*another name in a subclass"):
        model.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_replaced_keras_classifier_has_its_weights_before_a_call(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    model = _model(TF)
    model.classifier = keras.layers.Dense(7)
    model.save_pretrained(tmp_path)
    assert load_file(tmp_path / "model.safetensors")["classifier.weight"].shape[0] == 7
    ids = np.array([[1, 2, 3]])
    one, other = (TF.array(TF.call(each, input_ids=ids).logits) for each in (model, TF.load(tmp_path, CASE.head)))
    np.testing.assert_array_equal(one, other)


@on_both
def test_the_newest_weights_are_read_whatever_their_format(framework: Framework, tmp_path: Path) -> None:
    """A directory is searched for safetensors first."""
    first, second = _model(framework), framework.build(small_config(initializer_range=0.3), CASE.head)
    first.save_pretrained(tmp_path)
    second.save_pretrained(tmp_path, safe_serialization=False)
    assert not (tmp_path / "model.safetensors").exists()
    loaded = framework.weights(framework.load(tmp_path, CASE.head))
    for name, expected in framework.weights(second).items():
        np.testing.assert_array_equal(loaded[name], expected)


@on_both
@pytest.mark.parametrize("variant", ["../x", "", 3, "a b"])
def test_a_variant_is_checked_before_saving(framework: Framework, tmp_path: Path, variant: Any) -> None:
    with pytest.raises(InputError, match="`variant` must be a part of a file's name"):
        _model(framework).save_pretrained(tmp_path / "out", variant=variant)
    assert not (tmp_path / "out").exists()


@on_both
def test_refused_arguments_show_no_token(framework: Framework) -> None:
    with pytest.raises(KeywordError) as caught:
        framework.load(GOLDEN / "model", "model", adapter_kwargs={"token": "hf_secret"})
    assert "hf_secret" not in str(caught.value)


@on_both
def test_a_key_mapping_that_is_no_expression_is_refused(framework: Framework) -> None:
    with pytest.raises(InputError, match=r"keys of `key_mapping` must be regular expressions\. Received: '\('"):
        framework.load(GOLDEN / "model", "model", key_mapping={"(": "x"})


@needs_pt
@pytest.mark.parametrize("device_map", ["cuda:99", 99, {"": 99}])
def test_an_absent_device_is_refused(device_map: Any) -> None:
    with pytest.raises(InputError, match="must name a device of this machine"):
        PT.load(GOLDEN / "model", "model", device_map=device_map)


def test_older_weights_of_keras_are_sent_to_from_pretrained() -> None:
    pytest.importorskip("tensorflow")
    from rembert.tf import TFRemBertModel

    with pytest.raises(InputError, match=r"tf_model\.h5.*TFRemBertModel\.from_pretrained"):
        TFRemBertModel(small_config()).load_weights(GOLDEN / "model" / "tf_model.h5")


# ------------------------------------------------------------------ classes of the user's own


@on_both
def test_custom_heads_are_saved_and_loaded(framework: Framework, tmp_path: Path) -> None:
    """A class on `RemBertPreTrainedModel` with a base model as `rembert`, which declares no head."""
    kind = _custom_class(framework)
    model = kind(small_config())
    model.save_pretrained(tmp_path)
    loaded = kind.from_pretrained(tmp_path)
    assert loaded.config.architectures == ["Custom"]
    ids = np.array([[1, 2, 3], [4, 5, 6]])
    one, other = (framework.array(framework.call(each, input_ids=ids)) for each in (model, loaded))
    assert one.shape == (2, 7)
    np.testing.assert_array_equal(one, other)
    assert "extra.weight" in load_file(tmp_path / "model.safetensors")
    framework.build(small_config(), "model").save_pretrained(tmp_path / "base")
    with pytest.warns(UserWarning, match=r"newly initialised: extra\.weight"):
        kind.from_pretrained(tmp_path / "base")


def _custom_class(framework: Framework) -> Any:
    if framework is PT:
        from torch import nn

        from rembert.pt import RemBertModel, RemBertPreTrainedModel

        class Custom(RemBertPreTrainedModel):
            def __init__(self, config: RemBertConfig) -> None:
                super().__init__(config)
                self.rembert = RemBertModel(config)
                self.extra = nn.Linear(config.hidden_size, 7)
                self.post_init()

            def forward(self, input_ids: Any) -> Any:
                return self.extra(self.rembert(input_ids).pooler_output)

        return Custom
    import keras

    from rembert.tf import TFRemBertModel, TFRemBertPreTrainedModel

    class TFCustom(TFRemBertPreTrainedModel):
        def __init__(self, config: RemBertConfig, **kwargs: Any) -> None:
            super().__init__(config, **kwargs)
            self.rembert = TFRemBertModel(config, name="rembert", dtype=self.dtype_policy)
            self.extra = keras.layers.Dense(7, dtype=self.dtype_policy)

        def build(self, input_shape: Any = None) -> None:
            self.build_parts(rembert=None, extra=self.config.hidden_size)

        def call(self, input_ids: Any, training: bool | None = None) -> Any:
            return self.extra(self.rembert(input_ids, training=training).pooler_output)

    return TFCustom
