"""Directions on disk, on the Hub and in the formats of other tools."""

import base64
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from ontogeny.direction import Direction
from ontogeny.errors import BadInput
from ontogeny.sites import Site
from ontogeny.storage.directions import (
    DIRECTION_FILE,
    DIRECTION_FORMAT,
    direction_card,
    direction_header,
    load_direction,
    save_direction,
)
from ontogeny.storage.export import read_vector, vllm_lens_arguments, write_gguf, write_lm_eval
from tests.helpers.fake_hub import Hub


def direction(site="resid.2", d=24):
    vector = torch.randn(d, generator=torch.Generator().manual_seed(1))
    return Direction(
        vector,
        Site.parse(site),
        "truth@step3/mass_mean",
        "gap",
        "last:span",
        {"gap": 2.5, "std": 0.5},
        "true",
        "cafe",
        "f00d",
    )


def same(a, b):
    told = ("site", "origin", "scale", "position", "facts", "sign", "tokenizer", "fitted_on")
    return torch.equal(a.vector, b.vector) and all(getattr(a, name) == getattr(b, name) for name in told)


@pytest.mark.parametrize("site", ["resid.0", "head.3.2", "neuron.1", "mlp_resid.4"])
def test_save_and_load_round_trip(tmp_path, site):
    one = direction(site)
    assert same(load_direction(save_direction(one, tmp_path / "a.safetensors")), one)
    assert not same(load_direction(tmp_path / "a.safetensors"), -one)


def test_round_trip_of_half_precision_and_slices(tmp_path):
    one = Direction(torch.randn(8, 3)[:, 1].bfloat16(), Site("resid", 1), "x")
    assert same(load_direction(save_direction(one, tmp_path / "a.safetensors")), one)


def test_file_of_an_earlier_version_is_read(tmp_path):
    from safetensors.torch import save_file

    one = replace(direction(), fitted_on="")
    header = {name: value for name, value in direction_header(one).items() if name != "fitted_on"}
    save_file({"vector": one.vector}, tmp_path / "a.safetensors", metadata={"ontogeny": json.dumps(header)})
    assert same(load_direction(tmp_path / "a.safetensors"), one)


def test_load_rejects_other_files_in_one_line(tmp_path):
    (tmp_path / "broken.safetensors").write_bytes(b"no tensors")
    from safetensors.torch import save_file

    save_file({"w": torch.ones(2)}, tmp_path / "other.safetensors")
    save_file({"w": torch.ones(2)}, tmp_path / "run.safetensors", metadata={"ontogeny": json.dumps({"sites": {}})})
    save_file({"vector": torch.ones(2)}, tmp_path / "list.safetensors", metadata={"ontogeny": "[]"})
    half = json.dumps({"format": DIRECTION_FORMAT, "site": "resid.1"})
    save_file({"vector": torch.ones(2)}, tmp_path / "half.safetensors", metadata={"ontogeny": half})
    for name, words in (
        ("missing.safetensors", "there is no file"),
        ("broken.safetensors", "is not a direction"),
        ("other.safetensors", "is not a direction"),
        ("run.safetensors", "its header has another format"),
        ("list.safetensors", "its header has another format"),
        ("half.safetensors", "'origin' is missing"),
    ):
        with pytest.raises(BadInput, match=words) as caught:
            load_direction(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(BadInput, match=r"must end in \.safetensors, got a\.pt"):
        save_direction(direction(), tmp_path / "a.pt")


def test_gguf_reader_reads_control_vector(tmp_path):
    gguf = pytest.importorskip("gguf")
    many = [direction("resid.2"), direction("resid.5") * 3.0]
    reader = gguf.GGUFReader(write_gguf(many, tmp_path / "v.gguf", model_type="llama", alpha=0.5))
    assert reader.get_field("general.architecture").contents() == "controlvector"
    assert reader.get_field("controlvector.model_hint").contents() == "llama"
    assert reader.get_field("controlvector.layer_count").contents() == 2
    found = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    # resid.l is what leaves llama.cpp's layer l - 1.
    assert sorted(found) == ["direction.1", "direction.4"]
    np.testing.assert_array_equal(found["direction.1"], 0.5 * many[0].vector.numpy())
    np.testing.assert_array_equal(found["direction.4"], 0.5 * many[1].vector.numpy())


def test_gguf_equals_output_of_its_own_writer(tmp_path):
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "theirs.gguf", "controlvector")
    writer.add_string("controlvector.model_hint", "llama")
    writer.add_int32("controlvector.layer_count", 1)
    writer.add_tensor("direction.1", direction().vector.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    write_gguf(direction(), tmp_path / "ours.gguf", model_type="llama")
    assert (tmp_path / "ours.gguf").read_bytes() == (tmp_path / "theirs.gguf").read_bytes()


def test_lm_eval_file_has_its_format(tmp_path):
    path = write_lm_eval(direction(), tmp_path / "s.pt", alpha=4.0)
    config = torch.load(path, weights_only=True)  # noqa: TID251
    assert list(config) == ["layers.1"]
    assert config["layers.1"]["action"] == "add"
    assert config["layers.1"]["steering_coefficient"] == 4.0
    assert torch.equal(config["layers.1"]["steering_vector"], direction().vector)
    assert config["layers.1"]["bias"] is None


def test_vllm_lens_arguments():
    told = vllm_lens_arguments(direction("resid.7"), 2.0)
    assert told["layer_indices"] == [6]
    assert told["activations"].shape == (1, 24)
    assert (told["scale"], told["norm_match"]) == (2.0, False)


def test_read_vector_takes_arguments_as_metadata(tmp_path):
    v = torch.randn(24)
    np.save(tmp_path / "v.npy", v.numpy())
    torch.save({"layer_3": v[None], "text": "x"}, tmp_path / "v.pt")
    told = {"site": "resid.3", "origin": "peer's file", "sign": "true"}
    assert torch.equal(read_vector(tmp_path / "v.npy", **told).vector, v)
    found = read_vector(tmp_path / "v.pt", **told, key="layer_3", allow_pickle=True)
    assert torch.equal(found.vector, v)
    assert (found.site, found.sign, found.scale) == (Site("resid", 3), "true", "raw")


def test_export_errors_are_one_line(tmp_path):
    torch.save(torch.randn(3), tmp_path / "v.pt")
    torch.save({"code": re.compile("x")}, tmp_path / "code.pt")
    np.save(tmp_path / "m.npy", np.ones((3, 4)))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    told = {"site": "resid.3", "origin": "x"}
    for make, words in (
        (lambda: write_gguf(direction("resid.1"), tmp_path / "a", model_type="llama"), "resid.2 and later"),
        (lambda: write_gguf(direction("mlp.2"), tmp_path / "a", model_type="llama"), "residual stream"),
        (lambda: write_gguf([direction()] * 2, tmp_path / "a", model_type="llama"), "one direction per layer"),
        (lambda: write_gguf([], tmp_path / "a", model_type="llama"), "one direction per layer"),
        (lambda: write_gguf(direction(), tmp_path / "a", model_type="llama", alpha=float("nan")), "`alpha` must be"),
        (lambda: write_lm_eval(direction("resid.0"), tmp_path / "a.pt"), "resid.1 and later"),
        (lambda: vllm_lens_arguments(direction("resid.0")), "resid.1 and later"),
        (lambda: read_vector(tmp_path / "v.pt", **told), "set `allow_pickle`"),
        (lambda: read_vector(tmp_path / "code.pt", **told, allow_pickle=True), "is not opened"),
        (lambda: read_vector(tmp_path / "m.npy", **told), "must hold one vector"),
        (lambda: read_vector(tmp_path / "m.npy", **told, key=9), "has nothing under 9"),
        (lambda: read_vector(tmp_path / "objects.npy", **told), "cannot be read as an array"),
        (lambda: read_vector(tmp_path / "none.npy", **told), "there is no file"),
    ):
        with pytest.raises(BadInput, match=words) as caught:
            make()
        assert "\n" not in str(caught.value)


def sent(request):
    """The body of a request, whole or in chunks."""
    if "Content-Length" in request.headers:
        return request.rfile.read(int(request.headers["Content-Length"]))
    body = b""
    while size := int(request.rfile.readline(), 16):
        body += request.rfile.read(size)
        request.rfile.readline()
    request.rfile.readline()
    return body


class PushHub(Hub):
    """The stand-in, with the three calls of an upload; what is committed becomes a repository."""

    def __enter__(self):
        super().__enter__()
        handler, hub = self.server.RequestHandlerClass, self

        def do_POST(request):
            body = sent(request).decode()
            hub.requests.append(("POST", request.path))
            request.command = "GET"  # the stand-in sends a body with these alone
            if request.path == "/api/repos/create":
                told = json.loads(body)
                owner = told.get("organization") or "me"
                if owner == "stranger":
                    return request._error(403, None)
                request._json({"url": f"{hub.endpoint}/{owner}/{told['name']}", "id": f"{owner}/{told['name']}"})
            elif request.path == "/api/validate-yaml":
                request._json({"errors": [], "warnings": []})
            elif "/preupload/" in request.path:
                files = [
                    {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for f in json.loads(body)["files"]
                ]
                request._json({"files": files})
            else:
                repository = re.fullmatch(r"/api/models/(.+)/commit/(.+)", request.path)[1]
                folder = hub.home / "pushed" / repository.replace("/", "--")
                folder.mkdir(parents=True, exist_ok=True)
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        (folder / line["value"]["path"]).write_bytes(base64.b64decode(line["value"]["content"]))
                hub.add(repository, "main", folder)
                request._json({"commitUrl": f"{hub.endpoint}/{repository}/commit/{'a' * 40}", "commitOid": "a" * 40})

        handler.do_POST = do_POST
        return self


def test_hub_round_trip(tmp_path):
    save_direction(direction(), tmp_path / DIRECTION_FILE)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/config.json").write_text("{}")
    with PushHub(tmp_path / "home") as hub:
        hub.add("me/empty", "main", tmp_path / "empty")
        found = hub.run(f"""
            from ontogeny.storage.directions import (
                direction_from_hub, load_direction, push_direction_to_hub, save_direction,
            )
            def error(call):
                try: call()
                except BadInput as error: return str(error)
            one = load_direction("{tmp_path / DIRECTION_FILE}")
            url = push_direction_to_hub(one, "me/truth", token="t")
            save_direction(direction_from_hub("me/truth"), "{tmp_path / "back.safetensors"}")
            show([url, error(lambda: push_direction_to_hub(one, "stranger/truth", token="t")),
                  error(lambda: direction_from_hub("me/empty")), error(lambda: direction_from_hub("me/nowhere")),
                  error(lambda: direction_from_hub("me/truth", revision="v2"))])
        """)
    assert found[0].endswith("/me/truth/commit/" + "a" * 40)
    assert same(load_direction(tmp_path / "back.safetensors"), direction())
    assert "the Hub answered 403 for stranger/truth" in found[1]
    assert "me/empty has no direction.safetensors" in found[2]
    assert "no public Hub repository 'me/nowhere'" in found[3]
    assert "no revision 'v2'" in found[4]
    assert "truth@step3" in direction_card(direction())
