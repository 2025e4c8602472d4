"""Our own reading of safetensors files against the library's."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from stages.common.errors import UserError
from stages.models.safetensors_file import DTYPES, unread


def test_tensors_of_every_type_and_shape_are_the_librarys(tmp_path):
    shapes = [(3, 5), (7,), (), (0, 4)]
    tensors = {
        f"{name} {shape}": torch.randint(0, 2, shape).to(dtype) for name, dtype in DTYPES.items() for shape in shapes
    }
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    found = {name: each[...] for name, each in unread(tmp_path / "model.safetensors").items()}
    expected = load_file(tmp_path / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_a_tensor_has_memory_of_its_own(tmp_path):
    file = tmp_path / "model.safetensors"
    save_file({"weight": torch.ones(4)}, file)
    first, second = unread(file)["weight"][...], unread(file)["weight"][...]
    first.zero_()
    file.unlink()
    assert second.sum() == 4


def test_what_cannot_be_read_is_one_line(tmp_path):
    file = tmp_path / "model.safetensors"
    save_file({"weight": torch.ones(4)}, file)
    tensor = unread(file)["weight"]
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"model\.safetensors is truncated"):
        tensor[...]
    save_file({"weight": torch.ones(4, dtype=torch.float8_e4m3fn)}, file)
    with pytest.raises(UserError, match=r"weight is of type F8_E4M3; expected one of: F64"):
        unread(file)
