"""The repairs that RL Zoo's scripts for the Hugging Face hub need, without the hub."""

import importlib
import types
import zipfile
from pathlib import Path

import huggingface_hub
import huggingface_sb3
import pytest
from requests.exceptions import HTTPError
from rl_zoo3.load_from_hub import download_from_hub
from rl_zoo3.push_to_hub import generate_model_card

from sb3_softac.zoo import hub


def test_model_card_of_the_zoo():
    card, metadata = generate_model_card("softac_v1", "SoftAC_v1", "me", "Pendulum-v1", -150.0, 10.0, {}, {})
    assert "--algo softac_v1" in card
    assert metadata["library_name"] == "stable-baselines3"  # a dictionary, as the Zoo wants it


def test_a_name_that_exists_is_left_alone():
    module = types.SimpleNamespace(generate_metadata="their own", _generate_metadata="private")
    hub._restore_generate_metadata(module)
    assert module.generate_metadata == "their own"


@pytest.fixture
def fake_hub(tmp_path, monkeypatch):
    """A folder in place of the hub, holding a model that was trained without VecNormalize."""
    folder = tmp_path / "hub"
    folder.mkdir()
    for name in ("softac_v1-Pendulum-v1.zip", "config.yml", "args.yml", "env_kwargs.yml"):
        (folder / name).write_text(name)
    with zipfile.ZipFile(folder / "train_eval_metrics.zip", "w") as archive:
        archive.writestr("0.monitor.csv", "")

    def hf_hub_download(repo_id, filename, **kwargs):
        assert repo_id == "me/softac_v1-Pendulum-v1"
        if (folder / filename).exists():
            return str(folder / filename)
        response = types.SimpleNamespace(headers={}, request=None)
        raise huggingface_hub.errors.RemoteEntryNotFoundError(f"no {filename}", response=response)

    monkeypatch.setenv("TRUST_REMOTE_CODE", "True")  # huggingface_sb3 refuses to download anything without it
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    return folder


def fetch(folder):
    name = huggingface_sb3.EnvironmentName("Pendulum-v1")
    download_from_hub("softac_v1", name, exp_id=0, folder=str(folder), organization="me")


def test_model_without_normalization_is_fetched(fake_hub, tmp_path):
    fetch(tmp_path / "logs")
    fetched = Path(tmp_path / "logs/softac_v1/Pendulum-v1_1")
    assert (fetched / "Pendulum-v1.zip").exists() and (fetched / "0.monitor.csv").exists()
    assert not (fetched / "Pendulum-v1/vecnormalize.pkl").exists()


def test_both_kinds_of_handlers_catch_a_missing_file(fake_hub):
    for kind in (HTTPError, huggingface_hub.errors.EntryNotFoundError):
        with pytest.raises(kind, match="no such"):
            huggingface_sb3.load_from_hub("me/softac_v1-Pendulum-v1", "such.zip")


def test_a_lost_connection_is_not_taken_for_a_missing_file(fake_hub, tmp_path, monkeypatch):
    def offline(repo_id, filename, **kwargs):
        if filename == "vec_normalize.pkl":
            raise huggingface_hub.errors.LocalEntryNotFoundError("no connection")
        return str(fake_hub / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(huggingface_hub.errors.LocalEntryNotFoundError):
        fetch(tmp_path / "logs")


def test_nothing_is_wrapped_where_the_errors_agree(monkeypatch):
    monkeypatch.setattr(huggingface_hub.errors, "RemoteEntryNotFoundError", HTTPError)
    module = types.SimpleNamespace(load_from_hub="original")
    hub._report_missing_files_as_before(module)
    assert module.load_from_hub == "original"


def test_repairs_happen_once():
    before = huggingface_sb3.load_from_hub
    hub.repair_hub()
    assert huggingface_sb3.load_from_hub is before
    assert importlib.import_module("rl_zoo3.load_from_hub").load_from_hub is before
