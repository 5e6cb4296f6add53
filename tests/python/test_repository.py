"""Tenants come, change and go while the server runs, and a bad one stops no other."""
import pytest
import tritonclient.http as http
from conftest import CASES, FIXTURES, Case, infer_inputs, place, relative_l2, serving
from tritonclient.utils import InferenceServerException


def answers_as(server, tenant, case):
    """Does `tenant` answer `case`'s question as PyTorch did? An error is a no."""
    asked, expected = (case if isinstance(case, Case) else CASES[case]).sets[0]
    with http.InferenceServerClient(server.url, network_timeout=60) as client:
        try:
            result = client.infer(tenant, infer_inputs(http, asked))
        except InferenceServerException:
            return False
    return all(relative_l2(result.as_numpy(name), array) < 1e-5 for name, array in expected.items())


def test_an_empty_repository_is_served_and_a_tenant_put_into_it_arrives(tmp_path):
    with serving(tmp_path) as server:
        assert not server.is_ready("late")
        place(CASES["mlp-0"].model, tmp_path / "late.onnx")
        server.wait_until(lambda: answers_as(server, "late", "mlp-0"), "the tenant's arrival")


def test_a_new_version_takes_over_and_a_removed_tenant_goes(tmp_path):
    place(CASES["mlp-0"].model, tmp_path / "model" / "1" / "model.onnx")
    place(CASES["mlp-1"].model, tmp_path / "other.onnx")
    with serving(tmp_path) as server:
        assert answers_as(server, "model", "mlp-0")
        place(CASES["mlp-2"].model, tmp_path / "model" / "2" / "model.onnx")
        server.wait_until(lambda: answers_as(server, "model", "mlp-2"), "the second version")
        (tmp_path / "other.onnx").unlink()
        server.wait_until(lambda: not server.is_ready("other"), "the removed tenant's going")
        assert answers_as(server, "model", "mlp-2")


@pytest.mark.parametrize("content", [b"", b"not a model at all", CASES["mlp-3"].model.read_bytes()[:5000]],
                         ids=["empty", "random", "truncated"])
def test_a_bad_model_stops_no_other_tenant(tmp_path, content):
    place(CASES["mlp-0"].model, tmp_path / "good.onnx")
    with serving(tmp_path) as server:
        (tmp_path / "bad.onnx").write_bytes(content)
        # A tenant put in after the bad one arrives: the bad one was passed by.
        place(CASES["mlp-1"].model, tmp_path / "after.onnx")
        server.wait_until(lambda: answers_as(server, "after", "mlp-1"), "the tenant after the bad one")
        assert not server.is_ready("bad")
        assert answers_as(server, "good", "mlp-0")


def test_a_tenant_toml_beside_a_model_is_read(tmp_path):
    place(CASES["mlp-0"].model, tmp_path / "settled" / "model.onnx")
    (tmp_path / "settled" / "tenant.toml").write_text('slo_ms = 5000\nslo_percentile = 99\nshare = 2\nowner = "us"\n')
    with serving(tmp_path) as server:
        assert answers_as(server, "settled", "mlp-0")


@pytest.mark.parametrize("folder", ["", "iris", "iris/1"])
def test_a_model_with_its_weights_in_a_second_file_is_served_from_every_layout(tmp_path, folder):
    """As torch's exporter writes it today, and as the README's lines put it there: `iris.onnx` and `iris.onnx.data`."""
    source = FIXTURES / "torch_export"
    place(source / "iris.onnx", tmp_path / folder / ("model.onnx" if folder else "iris.onnx"))
    with serving(tmp_path) as server:
        # The weights come second, as `mv iris.onnx*` brings them: until then the model is incomplete, afterwards it is served.
        place(source / "iris.onnx.data", tmp_path / folder / "iris.onnx.data")
        server.wait_until(lambda: answers_as(server, "iris", Case("torch_export/iris")), "the arrival of the weights")
