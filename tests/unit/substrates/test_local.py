"""The local substrate: what it says of itself, and that it computes."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from packetfs_compute import __version__, kernels
from packetfs_compute.names import MAX_RANGE_BYTES, OPS
from packetfs_compute.places import SubstrateSpec
from packetfs_compute.settings import Settings
from packetfs_compute.substrates import Substrate
from packetfs_compute.substrates.local import LocalSubstrate

CONTRACT = Path(__file__).parents[3] / "remote" / "contract"
HERE = SubstrateSpec("local", "local")


@pytest.fixture
def local(tmp_path: Path) -> Substrate:
    return LocalSubstrate(HERE, Settings(region="here", file_roots=(tmp_path,)))


def test_its_health_is_the_contracts(local: Substrate) -> None:
    schema = json.loads((CONTRACT / "health.schema.json").read_text("utf-8"))
    Draft202012Validator.check_schema(schema)
    health = local.health(timeout_s=1.0)
    assert list(Draft202012Validator(schema).iter_errors(health)) == []
    assert json.loads(json.dumps(health)) == health
    assert (health["version"], health["region"], health["ops"]) == (__version__, "here", list(OPS))
    assert set(health["kernel"].split(", ")) == set(kernels.active().values())


def test_what_it_declares(local: Substrate) -> None:
    capabilities = local.capabilities
    assert (capabilities.name, capabilities.trust) == ("local", "own")
    assert (capabilities.kind, capabilities.provider, capabilities.region) == ("local", "own", "here")
    assert capabilities.schemes == {"http", "https", "s3", "file"}
    assert capabilities.max_range_bytes == MAX_RANGE_BYTES
    assert capabilities.max_duration_s == 3600
    assert 64 < capabilities.memory_mb < 1 << 24


def test_what_settings_say_differently_of_it() -> None:
    spec = SubstrateSpec("mac-mini", "local", provider="aws", region="iad", slots=2, memory_mb=128, trust="verified")
    capabilities = LocalSubstrate(spec, Settings(region="here")).capabilities
    assert (capabilities.name, capabilities.kind, capabilities.trust) == ("mac-mini", "local", "verified")
    assert (capabilities.provider, capabilities.region) == ("aws", "iad")
    assert (capabilities.slots, capabilities.memory_mb) == (2, 128)


def test_it_computes_under_its_own_settings(local: Substrate, tmp_path: Path) -> None:
    (tmp_path / "object").write_bytes(b"a\nb\n")
    request = {"jobId": "j1", "program": {"data_url": str(tmp_path / "object"), "op": "counteq", "imm": 10}}
    answer = local.invoke(request)
    assert (answer["success"], answer["jobId"], answer["region"]) == (True, "j1", "here")
    assert answer["results"] == [{"op": "counteq", "imm": 10, "value": 2}]
    elsewhere = LocalSubstrate(HERE, Settings()).invoke(request)
    assert elsewhere["error"]["type"] == "forbidden_source"


def test_a_failed_attempt_is_an_answer(local: Substrate) -> None:
    assert local.invoke({})["error"]["type"] == "bad_program"
