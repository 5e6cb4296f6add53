"""What the server says of itself and of its tenants."""
import pytest
from conftest import CASES

DATATYPES = {"float32": "FP32", "int32": "INT32", "int64": "INT64"}


def test_the_server_names_itself_and_its_extensions(client):
    metadata = client.get_server_metadata()
    assert metadata["name"] == "tessera"
    assert metadata["version"]
    assert "binary_tensor_data" in metadata["extensions"]


@pytest.mark.parametrize("name", CASES)
def test_a_tenants_metadata_fits_what_it_is_asked_and_answers(client, name):
    metadata = client.get_model_metadata(name)
    assert metadata["name"] == name
    for asked, answered in CASES[name].sets:
        for tensors, arrays in ((metadata["inputs"], asked), (metadata["outputs"], answered)):
            assert {t["name"] for t in tensors} == set(arrays)
            for tensor in tensors:
                array = arrays[tensor["name"]]
                assert tensor["datatype"] == DATATYPES[str(array.dtype)]
                assert len(tensor["shape"]) == array.ndim
                assert tensor["shape"][0] == -1, "every fixture's batch is free"
                assert all(said in (-1, real) for said, real in zip(tensor["shape"], array.shape))


def test_a_free_length_is_said_as_minus_one(client):
    (tensor,) = client.get_model_metadata("lstm-0")["inputs"]
    assert tensor["shape"] == [-1, -1, 32]


def test_both_versions_of_a_tenant_are_listed(client):
    assert sorted(client.get_model_metadata("two-versions")["versions"]) == ["1", "2"]


def test_a_configuration_says_the_same_as_the_metadata(client):
    config, metadata = client.get_model_config("lstm-0"), client.get_model_metadata("lstm-0")
    said = [(t["name"], t["data_type"], t["dims"]) for t in config["input"]]
    assert said == [(t["name"], "TYPE_" + t["datatype"], t["shape"]) for t in metadata["inputs"]]
    assert config["max_batch_size"] == 0, "the batch is the first of the dims"


def test_statistics_of_all_tenants_have_what_clients_of_the_extension_read(client):
    stats = client.get_inference_statistics()["model_stats"]
    assert {"lstm-0", "mlp-0"} <= {of["name"] for of in stats}
    parts = {"success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss"}
    for of in stats:
        assert parts <= set(of["inference_stats"])
        assert all({"count", "ns"} <= set(part) for part in of["inference_stats"].values())
